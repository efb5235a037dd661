// What is drawn on canvases of the report and of the page of scripts/live.py alike.

const BOX_TEXT = { size: 13, pad: 4, line: 2 }; // CSS pixels

/** Colours of the style sheet, which a canvas cannot read by itself. */
const COLOURS = [
  "speaking", "silent", "speech", "seen", "cut", "text", "quiet", "line", "window",
  "box-speaking", "box-silent", "box-no-score", "box-text", "box-shade",
];
const colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of COLOURS) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

/** A canvas made as large as it is shown, cleared, in CSS pixels. */
function freshContext(canvas) {
  const ratio = devicePixelRatio;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

/** A box with a mark and the probability of speaking, null where it is not known; all in CSS pixels. */
function drawFace(context, mark, probability, threshold, x1, y1, x2, y2) {
  const speaks = probability !== null && probability >= threshold;
  const kind = probability === null ? "no-score" : speaks ? "speaking" : "silent";
  const line = speaks ? BOX_TEXT.line + 1 : BOX_TEXT.line;
  context.strokeStyle = colours["box-shade"]; // around the line, so that it shows on any frame
  context.lineWidth = line + 2;
  context.setLineDash([]);
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.strokeStyle = context.fillStyle = colours[`box-${kind}`];
  context.lineWidth = line;
  context.setLineDash(speaks ? [] : [6, 4]); // silent and speaking differ without colour, too
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  const text = probability === null ? mark : `${mark} · ${probability.toFixed(2)}`;
  context.font = `600 ${BOX_TEXT.size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 2 * BOX_TEXT.pad, height = BOX_TEXT.size + 2 * BOX_TEXT.pad - 2;
  const y = Math.max(0, y1 - height);
  context.fillRect(x1 - line / 2, y, width, height);
  context.fillStyle = colours["box-text"];
  context.textBaseline = "middle";
  context.fillText(text, x1 + BOX_TEXT.pad - line / 2, y + height / 2 + 1);
}

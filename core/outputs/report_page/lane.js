// One line of the timeline, of a person or of a face track: a thumbnail, and probability and speech on a canvas.

const LANE_HEIGHT = 44; // CSS pixels, of the canvas
const SPEECH_HEIGHT = 5;
const LEAST_CURVE_PX = 24; // narrower, a curve would be a blot
const LEAST_CUT_PX = 8; // of mean distance
const CURVE = { top: 4, bottom: LANE_HEIGHT - SPEECH_HEIGHT - 5 };

class Lane {
  /** `shown` is a speaker or a track; `below` says that it is a track of the person above. */
  constructor(report, shown, onFace, below = false) {
    this.report = report;
    this.shown = shown;
    this.tracks = shown.tracks ?? [shown];
    this.below = below;
    this.visible = false; // in the box of lanes; only then the canvas takes memory
    this.row = document.createElement("div");
    this.row.className = below ? "lane below" : "lane";
    const face = document.createElement("button");
    face.type = "button";
    face.className = "face";
    const [first, last] = [this.tracks[0], this.tracks.at(-1)];
    const label = shown.label ?? `Face ${shown.id}`;
    const seen = `${clock(first.startS)} to ${clock(last.endS)}`;
    const where = this.tracks.length > 1 ? `${this.tracks.length} face tracks` : `face track ${first.id}, shot ${first.shot}`;
    face.title = `${label}, ${where}, ${seen}: go to ${shown.speech.length ? "the first words" : "the first frame"}`;
    const said = report.audioS ? (shown.speakingS ? length(shown.speakingS) : "silent") : length(seenS(shown));
    face.append(thumbnail(shown), named(label, said));
    face.addEventListener("click", () => onFace(shown));
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${label}: ${shown.speech.length} segments of speech, ${
      length(shown.speakingS)} in all, seen from ${seen}`);
    this.row.append(face, this.canvas);
  }

  overlaps(view) {
    return this.tracks.some((track) => track.startS < view.endS && track.endS > view.startS);
  }

  setVisible(visible, view) {
    this.visible = visible;
    if (visible) this.draw(view);
    else this.canvas.width = this.canvas.height = 0;
  }

  draw(view) {
    const context = freshContext(this.canvas), width = this.canvas.clientWidth;
    const x = (timeS) => ((timeS - view.startS) / (view.endS - view.startS)) * width;
    drawCuts(context, this.report.cutsS, x, width, LANE_HEIGHT);
    const seen = this.tracks.map((track) => [track, Math.max(0, x(track.startS)), Math.min(width, x(track.endS))])
      .filter(([, left, right]) => right > left);
    context.fillStyle = colours.seen;
    for (const [, left, right] of seen) context.fillRect(left, 0, Math.max(right - left, 1), LANE_HEIGHT);
    for (const [startS, endS] of this.shown.speech) {
      if (endS < view.startS || startS > view.endS) continue;
      const from = x(startS), wide = Math.max(x(endS) - from, 1);
      context.fillStyle = colours.speech;
      context.fillRect(from, 0, wide, LANE_HEIGHT);
      context.fillStyle = colours.speaking;
      context.fillRect(from, LANE_HEIGHT - SPEECH_HEIGHT, wide, SPEECH_HEIGHT);
    }
    if (!this.report.probabilities) return;
    for (const [track, left, right] of seen) {
      if (right - left >= LEAST_CURVE_PX) this.drawCurve(context, track, view, x, width);
    }
  }

  /** The probability, the lowest and the highest of each column of pixels: no peak is lost at any zoom. */
  drawCurve(context, track, view, x, width) {
    const { timesS, probabilities, threshold } = this.report, { firstFrame, frames, first } = track;
    const y = (probability) => CURVE.bottom - probability * (CURVE.bottom - CURVE.top);
    const from = Math.max(lastAtMost(timesS, view.startS) - firstFrame, 0);
    const to = Math.min(lastAtMost(timesS, view.endS) + 1 - firstFrame, frames - 1);
    const ink = context.createLinearGradient(0, CURVE.top, 0, CURVE.bottom);
    ink.addColorStop(1 - threshold, colours.speaking);
    ink.addColorStop(1 - threshold, colours.silent);
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.beginPath();
    let column = null, lowest = 0, highest = 0, last = 0;
    const flush = () => {
      if (column === null) return;
      context.lineTo(column, y(highest));
      if (lowest < highest) context.lineTo(column, y(lowest));
      if (last > lowest) context.lineTo(column, y(last));
    };
    const columnsAFrame = (x(timesS[firstFrame + to]) - x(timesS[firstFrame + from])) / Math.max(1, to - from);
    for (let i = from; i <= to; i++) {
      const position = x(timesS[firstFrame + i]), value = probabilities[first + i];
      const own = columnsAFrame > 1 ? position : Math.round(position); // a column each, where frames are wider than pixels
      if (own !== column) {
        flush();
        column = own;
        lowest = highest = value;
      }
      if (value < lowest) lowest = value;
      if (value > highest) highest = value;
      last = value;
    }
    flush();
    context.lineTo(Math.min(x(track.endS), width + 2), y(last)); // a frame lasts until the next one
    context.stroke();
    context.strokeStyle = colours.line;
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(Math.max(0, x(track.startS)), y(threshold));
    context.lineTo(Math.min(width, x(track.endS)), y(threshold));
    context.stroke();
    context.setLineDash([]);
  }
}

/** Lines where shots change; where they would only be a grey field, none. */
function drawCuts(context, cutsS, x, width, height) {
  const positions = cutsS.map(x).filter((position) => position >= 0 && position <= width);
  if (positions.length * LEAST_CUT_PX > width) return;
  context.fillStyle = colours.cut;
  for (const position of positions) context.fillRect(Math.round(position), 0, 1, height);
}

function thumbnail(shown) {
  const image = document.createElement("img");
  image.src = shown.thumbnail;
  image.alt = "";
  image.width = image.height = 36;
  return image;
}

/** Seconds in which a speaker or a track is seen. */
function seenS(shown) {
  return shown.seenS ?? shown.endS - shown.startS;
}

/** A name with a line, or more elements, below. */
function named(label, ...below) {
  const name = document.createElement("span"), small = document.createElement("small");
  name.className = "name";
  small.textContent = below[0];
  name.append(label, small, ...below.slice(1));
  return name;
}

// A running timeline for each face: the last seconds of its probability of speaking.

"use strict";

const SHOWN_S = 30;
const LANE_HEIGHT = 44; // CSS pixels, of the canvas, as in the report
const SPEECH_HEIGHT = 5;
const CURVE = { top: 4, bottom: LANE_HEIGHT - SPEECH_HEIGHT - 5 };
const GAP_S = 0.5; // between frames that are not joined by the curve
const THUMBNAIL = 72; // pixels

class Lanes {
  constructor(element, threshold) {
    this.element = element;
    this.threshold = threshold;
    this.lanes = new Map(); // id -> lane
  }

  /** Take the faces of a frame; `image` shows it, `width` pixels of it wide. */
  add(frame, image) {
    for (const face of frame.faces) {
      if (!this.lanes.has(face.id)) this.lanes.set(face.id, this.newLane(face));
      const lane = this.lanes.get(face.id), height = face.box[3] - face.box[1];
      lane.points.push([frame.time, face.probability]);
      if (image && height > 1.2 * lane.height) {
        lane.height = height;
        drawThumbnail(lane.thumbnail, image, image.width / frame.width, face.box);
      }
    }
  }

  newLane({ id }) {
    const lane = { points: [], height: 0 };
    lane.row = document.createElement("div");
    lane.row.className = "lane";
    lane.row.dataset.face = id;
    lane.thumbnail = document.createElement("canvas");
    lane.thumbnail.className = "thumbnail";
    lane.thumbnail.width = lane.thumbnail.height = THUMBNAIL;
    lane.thumbnail.setAttribute("aria-hidden", "true");
    const name = document.createElement("span"), face = document.createElement("div");
    lane.said = document.createElement("small");
    name.className = "name";
    name.append(`Face ${id}`, lane.said);
    face.className = "face";
    face.append(lane.thumbnail, name);
    lane.canvas = document.createElement("canvas");
    lane.canvas.className = "curve";
    lane.canvas.setAttribute("role", "img");
    lane.canvas.setAttribute("aria-label", `Face ${id}: probability of speaking in the last ${SHOWN_S} seconds`);
    lane.row.append(face, lane.canvas);
    this.element.append(lane.row);
    return lane;
  }

  /** Forget what is older than what is shown before a time, and draw the rest. */
  draw(nowS) {
    for (const [id, lane] of this.lanes) {
      const first = lane.points.findIndex(([timeS]) => timeS >= nowS - SHOWN_S && timeS <= nowS + 1);
      lane.points = first < 0 ? [] : lane.points.slice(first);
      if (lane.points.length) {
        this.drawLane(lane, nowS);
        continue;
      }
      lane.row.remove();
      this.lanes.delete(id);
    }
  }

  drawLane(lane, nowS) {
    const [lastS, probability] = lane.points.at(-1), gone = nowS - lastS > GAP_S;
    const speaks = !gone && probability !== null && probability >= this.threshold;
    lane.row.classList.toggle("gone", gone);
    lane.said.classList.toggle("speaks", speaks);
    lane.said.textContent = gone ? "gone" : probability === null ? "not heard"
      : `${speaks ? "speaks" : "silent"} · ${probability.toFixed(2)}`;
    const context = freshContext(lane.canvas), width = lane.canvas.clientWidth;
    const x = (timeS) => width * (1 - (nowS - timeS) / SHOWN_S);
    const y = (value) => CURVE.bottom - value * (CURVE.bottom - CURVE.top);
    for (const run of runs(lane.points)) {
      const left = x(run[0][0]), right = x(run.at(-1)[0]);
      context.fillStyle = colours.seen;
      context.fillRect(left, 0, Math.max(1, right - left), LANE_HEIGHT);
      context.beginPath();
      for (const [i, [timeS, value]] of run.entries()) {
        const heard = value !== null, before = i > 0 ? run[i - 1] : null;
        if (heard && value >= this.threshold && before) {
          const from = x(before[0]), wide = x(timeS) - from + 0.5;
          context.fillStyle = colours.speech;
          context.fillRect(from, 0, wide - 0.5, LANE_HEIGHT);
          context.fillStyle = colours.speaking;
          context.fillRect(from, LANE_HEIGHT - SPEECH_HEIGHT, wide, SPEECH_HEIGHT);
        }
        if (heard && before && before[1] !== null) context.lineTo(x(timeS), y(value));
        else if (heard) context.moveTo(x(timeS), y(value));
      }
      const ink = context.createLinearGradient(0, CURVE.top, 0, CURVE.bottom);
      ink.addColorStop(1 - this.threshold, colours.speaking);
      ink.addColorStop(1 - this.threshold, colours.silent);
      context.strokeStyle = ink;
      context.lineWidth = 1.5;
      context.lineJoin = "round";
      context.setLineDash([]);
      context.stroke();
      context.strokeStyle = colours.line;
      context.lineWidth = 1;
      context.setLineDash([2, 3]);
      context.beginPath();
      context.moveTo(Math.max(0, left), y(this.threshold));
      context.lineTo(right, y(this.threshold));
      context.stroke();
    }
  }
}

/** Points without gaps between them, in turn. */
function runs(points) {
  const found = [];
  for (const point of points) {
    const last = found.at(-1);
    if (last && point[0] - last.at(-1)[0] <= GAP_S) last.push(point);
    else found.push([point]);
  }
  return found;
}

/** The face with a margin around it. */
function drawThumbnail(canvas, image, scale, [x1, y1, x2, y2]) {
  const side = 1.4 * scale * Math.max(x2 - x1, y2 - y1);
  const left = (scale * (x1 + x2) - side) / 2, top = (scale * (y1 + y2) - side) / 2;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, THUMBNAIL, THUMBNAIL);
  context.drawImage(image, left, top, side, side, 0, 0, THUMBNAIL, THUMBNAIL);
}

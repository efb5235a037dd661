// What this machine's program tells, shown: frames with boxes, a timeline for each face, and what went wrong.

"use strict";

const DRAWN_EVERY_MS = 100; // the timelines
const MOST_WAITING = 100; // frames; a page in the background shows none
const ANEW_S = 5; // a time that is so far from its place is on a clock that was set
const SETTLING = 0.002; // s; how much sooner each frame is shown, as long as none comes too late
const LEFT_OUT_SHOWN = 0.01; // share of the frames
const SINCE_1970_S = 1e9; // larger times count from then
const ALL = 1000; // notes that are told again and again are shown once

const element = (id) => document.getElementById(id);

class Watch {
  constructor() {
    this.waiting = []; // frames that are not due
    this.lagS = null; // from the time of a frame until it is shown; so that no frame comes too late
    this.shown = null; // the frame
    this.lanes = null;
    this.notes = new Set();
    this.source = new EventSource("events");
    for (const name of ["begin", "frame", "note", "count", "end"]) {
      this.source.addEventListener(name, (event) => this[name](JSON.parse(event.data)));
    }
    this.source.addEventListener("error", () => this.setState("ended", "the program has ended, or is not answering"));
    setInterval(() => this.drawLanes(), DRAWN_EVERY_MS);
    addEventListener("resize", () => this.shown && this.drawBoxes());
    requestAnimationFrame(() => this.play());
  }

  begin({ title, delayS, threshold, takesCamera }) {
    document.title = `${title} · who speaks, live`;
    element("title").textContent = title;
    element("threshold").textContent = threshold;
    this.delayS = delayS;
    this.threshold = threshold;
    element("lanes").replaceChildren();
    this.lanes = new Lanes(element("lanes"), threshold);
    this.setState("waiting", "waiting");
    this.count({ frames: 0, leftOut: 0 });
    if (takesCamera && !this.camera) this.offerCamera();
  }

  /** Let people start and stop the browser's own camera. */
  offerCamera() {
    const phases = {
      begun: ["live", "live", "Waiting for the first scores."],
      lost: ["waiting", "camera gone", "The camera is gone. It is used again when it is back."],
      stopped: ["waiting", "stopped", "The camera is off."],
    };
    this.camera = new Camera({
      say: (text) => this.note(text),
      fail: (text) => this.showEmpty(text, "refused"),
      meet: (phase) => {
        const [state, word, text] = phases[phase];
        this.setState(state, word);
        this.showEmpty(text);
        element("start").hidden = this.camera.isRunning;
        element("stop").hidden = !this.camera.isRunning;
      },
    });
    element("start").addEventListener("click", () => {
      this.showEmpty("The browser asks whether it may use the camera and the microphone.");
      element("start").hidden = true;
      this.camera.start();
    });
    element("stop").addEventListener("click", () => this.camera.stop());
    element("start").hidden = element("privacy").hidden = false;
    this.showEmpty("The camera is off.");
  }

  showEmpty(text, kind = "") {
    element("empty").hidden = false;
    element("empty").dataset.kind = kind;
    element("empty-text").textContent = text;
    this.waiting = [];
    element("boxes").width = 0;
  }

  /** Whether the page's camera was stopped or is gone: frames that were on their way then are not shown. */
  get isDark() {
    return this.camera !== undefined && !this.camera.isSeen;
  }

  frame(frame) {
    const lagS = performance.now() / 1000 - frame.time;
    if (this.isDark) return;
    if (this.lagS === null || Math.abs(lagS - this.lagS) > ANEW_S) {
      this.waiting = [];
      this.lagS = lagS;
    }
    this.lagS = Math.max(lagS, this.lagS - SETTLING);
    this.waiting.push(frame);
    while (this.waiting.length > MOST_WAITING) this.lanes.add(this.waiting.shift(), null);
    this.count(frame);
  }

  note(text) {
    if (this.notes.has(text) || this.notes.size >= ALL) return;
    this.notes.add(text);
    element("notes").append(Object.assign(document.createElement("li"), { textContent: text }));
    element("notes").hidden = false;
  }

  count({ frames, leftOut }) {
    const facts = [`scores come ${this.delayS} s after what is seen`, `${frames.toLocaleString("en")} frames`];
    element("facts").replaceChildren(...facts.map((text) =>
      Object.assign(document.createElement("li"), { textContent: text })));
    element("slow").textContent = `This machine is too slow: ${leftOut.toLocaleString("en")} of ${
      frames.toLocaleString("en")} frames were left out.`;
    element("slow").hidden = leftOut <= LEFT_OUT_SHOWN * frames;
  }

  end(counts) {
    this.count(counts);
    this.source.close();
    if (this.camera) {
      this.camera.stop();
      element("start").hidden = element("privacy").hidden = true;
      this.showEmpty("The program has ended.");
    }
    this.setState("ended", "ended");
  }

  setState(state, text) {
    element("state").dataset.state = state;
    element("state").textContent = text;
  }

  /** Show the frame that is due, if there is one. */
  async play() {
    const dueS = performance.now() / 1000 - this.lagS, due = [];
    while (this.waiting.length && this.waiting[0].time <= dueS) due.push(this.waiting.shift());
    if (due.length) await this.show(due);
    requestAnimationFrame(() => this.play());
  }

  async show(frames) {
    const frame = frames.at(-1), image = new Image();
    image.src = `data:image/jpeg;base64,${frame.jpeg}`;
    await image.decode();
    if (this.isDark) return; // since just now
    const canvas = element("frame");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    document.body.style.setProperty("--aspect", frame.width / frame.height);
    element("empty").hidden = true;
    if (this.source.readyState !== EventSource.CLOSED) this.setState("live", "live");
    for (const other of frames.slice(0, -1)) this.lanes.add(other, null);
    this.lanes.add(frame, image);
    this.shown = frame;
    element("clock").textContent = frame.time < SINCE_1970_S ? `${frame.time.toFixed(2)} s`
      : new Date(1000 * frame.time).toLocaleTimeString();
    this.drawBoxes();
  }

  drawBoxes() {
    const { faces, width, height } = this.shown;
    const canvas = element("boxes"), context = freshContext(canvas);
    const across = canvas.clientWidth / width, down = canvas.clientHeight / height; // CSS pixels of a pixel
    for (const { id, box: [x1, y1, x2, y2], probability } of faces) {
      drawFace(context, String(id), probability, this.threshold, x1 * across, y1 * down, x2 * across, y2 * down);
    }
  }

  drawLanes() {
    if (!this.shown) return;
    this.lanes.draw(this.shown.time);
    element("no-faces").hidden = this.lanes.lanes.size > 0;
  }
}

element("shown-s").textContent = SHOWN_S;
readColours();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
const watch = new Watch();

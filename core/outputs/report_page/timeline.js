// All lanes, the ruler, and the strip that shows which part of the video they cover.

const OVERVIEW_HEIGHT = 40; // CSS pixels
const RULER_HEIGHT = 24;
const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
const TICK_PX = 90; // least distance of two labels
const SHORTEST_VIEW_S = 0.5;
const FIRST_VIEW_S = 120; // of longer videos; all of an hour at once would show specks
const MANY_LANES = 8; // from here on the lanes scroll in a box whose height does not change

class Timeline {
  /** `onSeek(timeS)` is called when the reader asks for another time, `onFace(shown)` for a speaker or a face track. */
  constructor(report, onSeek, onFace) {
    this.report = report;
    this.onSeek = onSeek;
    this.timeS = report.startS;
    this.view = { startS: report.startS, endS: report.endS };
    this.lanes = report.speakers.flatMap((speaker) => [
      new Lane(report, speaker, onFace),
      ...(speaker.tracks.length > 1 ? speaker.tracks.map((track) => new Lane(report, track, onFace, true)) : []),
    ]);
    this.laneOf = new Map(this.lanes.map((lane) => [lane.canvas, lane]));
    this.density = null;
    this.queued = false;
    this.box = element("lanes");
    this.ruler = element("ruler");
    this.overview = element("overview");
    this.box.parentElement.classList.toggle("many", this.lanes.length > MANY_LANES);
    this.box.append(...this.lanes.map((lane) => lane.row));
    this.watchLanes();
    this.listen();
    this.setView(report.startS, report.startS + (this.wholeS <= 2 * FIRST_VIEW_S ? this.wholeS : FIRST_VIEW_S));
  }

  get wholeS() {
    return this.report.endS - this.report.startS;
  }

  watchLanes() {
    // Seen from the box, not from the window: what lies below the fold is drawn, too, for pictures of the whole page.
    const inBox = new IntersectionObserver((entries) => {
      for (const entry of entries) this.laneOf.get(entry.target).setVisible(entry.isIntersecting, this.view);
    }, { root: this.box.parentElement, rootMargin: "100px" });
    for (const lane of this.lanes) inBox.observe(lane.canvas);
    addEventListener("beforeprint", () => {
      for (const lane of this.lanes) lane.setVisible(true, this.view);
    });
    addEventListener("afterprint", () => { // each lane is reported anew
      for (const lane of this.lanes) inBox.unobserve(lane.canvas), inBox.observe(lane.canvas);
    });
    new ResizeObserver(() => this.queue()).observe(this.ruler);
  }

  listen() {
    element("zoom-in").addEventListener("click", () => this.zoom(0.5));
    element("zoom-out").addEventListener("click", () => this.zoom(2));
    element("zoom-all").addEventListener("click", () => this.setView(this.report.startS, this.report.endS));
    for (const id of ["in-view", "show-tracks"]) element(id).addEventListener("change", () => this.queue());
    this.box.addEventListener("click", (event) => {
      if (event.target.tagName === "CANVAS") this.onSeek(this.timeAt(event));
    });
    this.box.addEventListener("pointermove", (event) => this.readOut(event));
    this.box.addEventListener("pointerleave", () => { element("readout").textContent = ""; });
    this.box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.overview.addEventListener("pointerdown", (event) => this.drag(event));
    this.overview.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** The part of the video that the lanes show; kept inside the video. */
  setView(startS, endS) {
    const whole = this.wholeS;
    const span = Math.min(Math.max(endS - startS, Math.min(SHORTEST_VIEW_S, whole)), whole);
    const start = Math.min(Math.max(startS, this.report.startS), this.report.endS - span);
    this.view = { startS: start, endS: start + span };
    this.queue();
  }

  /** Show `factor` times as much, keeping a time where it is: by default the one shown, or the middle. */
  zoom(factor, aroundS = null) {
    const { startS, endS } = this.view;
    if (aroundS === null) aroundS = this.timeS >= startS && this.timeS <= endS ? this.timeS : (startS + endS) / 2;
    this.setView(aroundS - (aroundS - startS) * factor, aroundS + (endS - aroundS) * factor);
  }

  /** Put a time into view, a quarter from the left, if it is not there. */
  reveal(timeS) {
    const { startS, endS } = this.view;
    if (timeS < startS || timeS > endS) this.setView(timeS - (endS - startS) / 4, timeS + (endS - startS) * 0.75);
  }

  /** Show which time it is; `follow` keeps it in view, unless the reader has moved the view elsewhere. */
  setTime(timeS, follow) {
    const wasInView = this.timeS >= this.view.startS && this.timeS <= this.view.endS;
    this.timeS = timeS;
    if (follow && wasInView) this.reveal(timeS);
    this.placePlayhead();
    this.drawOverview();
  }

  /** Draw once before the next refresh, however many reasons there are. */
  queue() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.draw();
    });
  }

  draw() {
    const only = element("in-view").checked, tracksToo = element("show-tracks").checked;
    for (const lane of this.lanes) {
      const hidden = (only && !lane.overlaps(this.view)) || (lane.below && !tracksToo);
      if (lane.row.hidden !== hidden) lane.row.hidden = hidden;
      if (lane.visible && !hidden) lane.draw(this.view);
    }
    this.drawRuler();
    this.drawOverview();
    this.placePlayhead();
  }

  drawRuler() {
    const context = freshContext(this.ruler), width = this.ruler.clientWidth, { startS, endS } = this.view;
    const x = (timeS) => ((timeS - startS) / (endS - startS)) * width;
    const stepS = TICKS_S.find((tick) => x(startS + tick) >= TICK_PX) ?? TICKS_S.at(-1);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let tick = Math.ceil(startS / stepS); tick * stepS <= endS; tick++) {
      const position = Math.round(x(tick * stepS)), text = clock(tick * stepS, stepS < 1 ? 1 : 0);
      context.fillStyle = colours.line;
      context.fillRect(position, RULER_HEIGHT - 6, 1, 6);
      context.fillStyle = colours.quiet;
      if (position + 4 + context.measureText(text).width < width) context.fillText(text, position + 4, RULER_HEIGHT / 2);
    }
  }

  drawOverview() {
    const context = freshContext(this.overview), width = this.overview.clientWidth;
    const x = (timeS) => ((timeS - this.report.startS) / this.wholeS) * width;
    drawCuts(context, this.report.cutsS, x, width, OVERVIEW_HEIGHT);
    if (this.density?.length !== width) this.density = this.countSpeakers(width, x);
    const most = Math.max(1, ...this.density);
    context.fillStyle = colours.speaking;
    this.density.forEach((speakers, column) => {
      const height = (speakers / most) * (OVERVIEW_HEIGHT - 12);
      if (speakers) context.fillRect(column, OVERVIEW_HEIGHT - 4 - height, 1, height);
    });
    const left = x(this.view.startS), right = x(this.view.endS);
    context.fillStyle = colours.window;
    context.fillRect(0, 0, left, OVERVIEW_HEIGHT);
    context.fillRect(right, 0, width - right, OVERVIEW_HEIGHT);
    context.strokeStyle = colours.quiet;
    context.strokeRect(left + 0.5, 0.5, Math.max(right - left - 1, 2), OVERVIEW_HEIGHT - 1);
    context.fillStyle = colours.text;
    context.fillRect(x(this.timeS) - 1, 0, 2, OVERVIEW_HEIGHT);
  }

  /** How many speak at once, at most, in each column of pixels. */
  countSpeakers(width, x) {
    const changes = new Int16Array(width + 1);
    for (const { speech } of this.report.speakers) {
      for (const [startS, endS] of speech) {
        changes[Math.min(Math.floor(x(startS)), width - 1)] += 1;
        changes[Math.min(Math.ceil(x(endS)), width)] -= 1;
      }
    }
    let speakers = 0;
    return Array.from({ length: width }, (_, column) => (speakers += changes[column]));
  }

  placePlayhead() {
    const { startS, endS } = this.view, share = (this.timeS - startS) / (endS - startS);
    const head = element("playhead");
    head.hidden = share < 0 || share > 1;
    head.style.transform = `translateX(${this.ruler.offsetLeft + share * this.ruler.clientWidth}px)`;
  }

  timeAt(event) {
    const { left, width } = this.ruler.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - left) / width, 0), 1);
    return this.view.startS + share * (this.view.endS - this.view.startS);
  }

  readOut(event) {
    const lane = this.laneOf.get(event.target), timeS = this.timeAt(event);
    let text = event.target.tagName === "CANVAS" ? clock(timeS, 2) : "";
    if (lane && this.report.probabilities) {
      for (const [track, i] of facesAt(this.report, timeS)) {
        if (lane.tracks.includes(track)) text += ` · ${this.report.probabilities[i].toFixed(2)}`;
      }
    }
    element("readout").textContent = text;
  }

  wheel(event) {
    const aside = event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX;
    const { startS, endS } = this.view;
    if (event.ctrlKey || event.metaKey) {
      this.zoom(Math.exp(event.deltaY / 300), event.currentTarget === this.box ? this.timeAt(event) : null);
    } else if (Math.abs(aside) > Math.abs(event.deltaY) || event.shiftKey) {
      const byS = (aside / this.ruler.clientWidth) * (endS - startS);
      this.setView(startS + byS, endS + byS);
    } else {
      return; // up and down: the page scrolls
    }
    event.preventDefault();
  }

  /** Pressing the strip goes there; dragging on moves what the lanes show. */
  drag(event) {
    const { left, width } = this.overview.getBoundingClientRect();
    const timeOf = (clientX) => this.report.startS + Math.min(Math.max((clientX - left) / width, 0), 1) * this.wholeS;
    const half = (this.view.endS - this.view.startS) / 2;
    const move = (timeS) => this.setView(timeS - half, timeS + half);
    this.overview.setPointerCapture(event.pointerId);
    this.onSeek(timeOf(event.clientX));
    move(timeOf(event.clientX));
    this.overview.onpointermove = (moved) => move(timeOf(moved.clientX));
    this.overview.onpointerup = this.overview.onpointercancel = () => { this.overview.onpointermove = null; };
  }
}

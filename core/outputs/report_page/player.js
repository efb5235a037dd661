// The video with boxes on a canvas above it, frame by frame.

class Player {
  /** `onTime(timeS)` is called whenever another time is shown. */
  constructor(report, onTime) {
    this.report = report;
    this.onTime = onTime;
    this.video = element("video");
    this.canvas = element("boxes");
    this.timeS = report.startS; // of what is shown
    this.aheadS = 0; // what the report's times are more than the video's
    this.nextS = null; // of a seek that waits for another one
    this.wantedS = null; // of a seek that has not come there
    this.showBoxes = !report.media.hasBoxes;
    element("show-boxes").checked = this.showBoxes;
    element("show-boxes").addEventListener("change", (event) => {
      this.showBoxes = event.target.checked;
      this.draw();
    });
    this.setAspect(report.width / report.height);
    // Pixels that are no squares: what is displayed has another shape than the frames.
    this.video.addEventListener("loadedmetadata", () => {
      if (this.video.videoHeight) this.setAspect(this.video.videoWidth / this.video.videoHeight);
    });
    // Where its clock begins is known with the first frame. A video with boxes drawn in counts from 0, as some players
    // do with any.
    this.video.addEventListener("loadeddata", () => {
      this.aheadS = this.video.currentTime < report.startS / 2 ? report.startS : 0;
    });
    element("fullscreen").addEventListener("click", () => this.toggleFullscreen());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    loadMedia(report, this.video);
    this.watch();
  }

  /** The frame's width by its height, as displayed. */
  setAspect(aspect) {
    this.aspect = aspect;
    element("stage").style.setProperty("--aspect", aspect);
    this.draw();
  }

  /** Follow the frames that the browser shows; where it does not report them, the screen's refreshes. */
  watch() {
    if ("requestVideoFrameCallback" in this.video) {
      const frameShown = (now, frame) => {
        if (!this.video.seeking) this.show(frame.mediaTime + this.aheadS); // a late frame from before a seek is not shown
        this.video.requestVideoFrameCallback(frameShown);
      };
      this.video.requestVideoFrameCallback(frameShown);
    } else {
      const refreshed = () => {
        if (!this.video.paused) this.show(this.videoS);
        requestAnimationFrame(refreshed);
      };
      requestAnimationFrame(refreshed);
    }
    // A seek is shown at once, before its frame is decoded, or where there is no video at all.
    this.video.addEventListener("seeking", () => this.show(this.videoS));
    this.video.addEventListener("seeked", () => this.arrive());
    // Of a file that begins late, Chromium finds out by and by how long it is, and seeks no further than it knows.
    this.video.addEventListener("durationchange", () => {
      if (this.wantedS !== null && this.hasVideo) this.seek(this.wantedS);
    });
    this.video.addEventListener("play", () => { this.wantedS = null; });
  }

  show(timeS) {
    this.timeS = timeS;
    this.draw();
    this.onTime(timeS);
  }

  /** The time at which the video is, as the report counts. */
  get videoS() {
    return this.video.currentTime + this.aheadS;
  }

  set videoS(timeS) {
    this.video.currentTime = timeS - this.aheadS;
  }

  get hasVideo() {
    return this.video.readyState >= HTMLMediaElement.HAVE_METADATA;
  }

  /** Where the last seek goes, be its frame shown yet or not. */
  get nowS() {
    return this.nextS ?? (this.hasVideo ? this.videoS : this.timeS);
  }

  /** Go to a time; while the video is on its way to another, wait: Chromium can hang when it is hurried. */
  seek(timeS) {
    const inside = Math.min(Math.max(timeS, this.report.startS), this.report.endS);
    this.wantedS = inside;
    this.nextS = this.hasVideo && this.video.seeking ? inside : null;
    if (!this.hasVideo) this.show(inside);
    else if (this.nextS === null) this.videoS = inside;
  }

  arrive() {
    this.show(this.videoS);
    if (this.videoS > this.wantedS - 0.01) this.wantedS = null;
    if (this.nextS !== null) this.videoS = this.nextS;
    this.nextS = null;
  }

  /** Go forward or back by frames. */
  step(frames) {
    const timesS = this.report.timesS;
    const frame = lastAtMost(timesS, this.nowS + 1e-3) + frames;
    const target = Math.min(Math.max(frame, 0), timesS.length - 1);
    this.video.pause();
    // The middle of the frame: its very beginning may round to the frame before.
    this.seek((timesS[target] + (timesS[target + 1] ?? this.report.endS)) / 2);
  }

  toggle() {
    if (this.video.paused) this.video.play().catch(() => {}); // no video: the page has said so
    else this.video.pause();
  }

  toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else element("stage").requestFullscreen();
  }

  draw() {
    const { report, canvas } = this;
    const context = freshContext(canvas);
    if (!this.showBoxes) return;
    const width = Math.min(canvas.clientWidth, canvas.clientHeight * this.aspect), height = width / this.aspect;
    context.translate((canvas.clientWidth - width) / 2, (canvas.clientHeight - height) / 2);
    const across = width / report.width, down = height / report.height; // CSS pixels of a pixel
    for (const [track, i] of facesAt(report, this.timeS)) {
      const [x1, y1, x2, y2] = report.edges.map((edge) => edge[i]);
      const probability = report.probabilities ? report.probabilities[i] : null;
      drawFace(context, track.mark, probability, report.threshold, x1 * across, y1 * down, x2 * across, y2 * down);
    }
  }
}

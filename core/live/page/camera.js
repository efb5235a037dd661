// The browser's own camera and microphone, sent to this machine's program. Both times are those of one clock.

"use strict";

const QUALITY = 0.85; // of the JPEGs
const MOST_ON_THE_WAY = 3; // frames that are made or sent; more are left out
const MOST_AUDIO_S = 2; // that waits to be sent
const AGAIN_MS = 2000; // until a device that is gone is looked for again
const DRIFT = 0.001; // s; how much the clocks of audio and page may drift apart from block to block
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 25, max: 30 } };
const MICROPHONE = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const REASONS = {
  NotAllowedError: "The browser may not use the camera. Allow it (in most browsers beside the address) and try again.",
  NotFoundError: "There is no camera. Connect one and try again.",
  NotReadableError: "The camera gives nothing: another program may be using it. End that and try again.",
};

/** Now, or a time of the page's clock in milliseconds: seconds since 1970, by a clock that is never set. */
const clockS = (ms = performance.now()) => (performance.timeOrigin + ms) / 1000;

class Camera {
  /** `say(text)` tells people; `fail(text)` that there is no camera; `meet(name)` follows: "begun", "lost", "stopped". */
  constructor({ say, fail, meet }) {
    this.say = say;
    this.fail = fail;
    this.meet = meet;
    this.id = crypto.randomUUID(); // a program takes the camera of one page
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.canvas = document.createElement("canvas");
    this.tracks = [];
    this.isRunning = false;
    this.run = 0; // grows with each start, stop and loss: whoever waited meanwhile is not needed any more
    this.heard = []; // blocks of audio that wait
    this.heardS = 0;
  }

  /** Whether it gives frames: it is running, and not gone. */
  get isSeen() {
    return this.isRunning && this.video.srcObject !== null;
  }

  async start() {
    this.isRunning = true;
    const run = ++this.run;
    let tracks;
    try {
      tracks = await this.wanted(this.devices(), run);
    } catch (error) {
      if (run !== this.run) return;
      this.stop();
      this.fail(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
      return;
    }
    if (run !== this.run) return;
    this.tracks = tracks;
    const [camera] = tracks.filter((track) => track.kind === "video");
    camera.addEventListener("ended", () => this.lose());
    this.onTheWay = this.missed = 0;
    this.sent = Promise.resolve();
    this.video.srcObject = new MediaStream([camera]);
    await this.video.play().catch(() => {}); // it was stopped meanwhile
    if (run !== this.run) return;
    this.meet("begun");
    this.see();
    this.hear(tracks.find((track) => track.kind === "audio")).catch((error) =>
      this.say(`The microphone cannot be used (${error.message}): faces have no probability.`));
  }

  /** Both devices; the camera alone where there is no microphone. */
  async devices() {
    const ask = (wanted) => navigator.mediaDevices.getUserMedia(wanted);
    let stream;
    try {
      stream = await ask({ video: CAMERA, audio: MICROPHONE });
    } catch {
      stream = await ask({ video: CAMERA });
      this.say("There is no microphone, or the browser may not use it: faces have no probability.");
    }
    return stream.getTracks();
  }

  /** The tracks that are promised; those that come when the run is over are stopped, and none are given. */
  async wanted(promised, run) {
    const tracks = await promised;
    if (run === this.run) return tracks;
    for (const track of tracks) track.stop();
    return [];
  }

  stop() {
    this.isRunning = false;
    this.run++;
    this.release();
    this.meet("stopped");
  }

  release() {
    for (const track of this.tracks) track.stop();
    this.tracks = [];
    this.video.srcObject = null;
    this.audio?.close();
    this.audio = null;
    this.heard = [];
    this.heardS = 0;
  }

  /** The camera has gone: look for one until there is one. */
  async lose() {
    const run = ++this.run;
    this.release();
    this.say("The camera is gone; it is used again when it is back.");
    this.meet("lost");
    if (await this.isBack("videoinput", run)) this.start();
  }

  /** Likewise the microphone. */
  async loseMicrophone() {
    const run = this.run;
    this.say("The microphone is gone: faces have no probability until it is back.");
    this.audio?.close();
    this.audio = null;
    if (!(await this.isBack("audioinput", run))) return;
    try {
      const promised = navigator.mediaDevices.getUserMedia({ audio: MICROPHONE }).then((stream) => stream.getTracks());
      const [track] = await this.wanted(promised, run);
      if (run !== this.run) return;
      this.tracks.push(track);
      this.hear(track);
    } catch {
      if (run === this.run) this.loseMicrophone();
    }
  }

  /** Wait for a device of a kind; false where the run that waits for it is over. */
  async isBack(kind, run) {
    let known = [];
    while (run === this.run && !known.some((device) => device.kind === kind)) {
      await new Promise((passed) => setTimeout(passed, AGAIN_MS));
      known = await navigator.mediaDevices.enumerateDevices();
    }
    return run === this.run;
  }

  see() {
    const video = this.video, stream = video.srcObject;
    const take = (nowMs, { captureTime }) => {
      if (video.srcObject !== stream || !this.isRunning) return;
      video.requestVideoFrameCallback(take);
      if (this.onTheWay >= MOST_ON_THE_WAY) this.missed++;
      else this.send(clockS(captureTime ?? nowMs));
    };
    video.requestVideoFrameCallback(take);
  }

  /** Send the frame that is shown; frames arrive in the order of their times. */
  send(timeS) {
    const { video, canvas } = this, before = this.sent;
    this.onTheWay++;
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const made = new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
    this.sent = (async () => {
      const jpeg = await made;
      await before;
      const missed = this.missed;
      this.missed = 0;
      await this.post("frame", { time: timeS, missed }, jpeg);
      this.onTheWay--;
    })();
  }

  async hear(track) {
    if (!track) return;
    track.addEventListener("ended", () => this.loseMicrophone());
    const audio = this.audio = new AudioContext();
    await audio.audioWorklet.addModule("microphone.js");
    if (this.audio !== audio) return;
    const source = audio.createMediaStreamSource(new MediaStream([track]));
    const node = new AudioWorkletNode(audio, "microphone", { channelCount: 1, numberOfOutputs: 0 });
    let aheadS = Infinity; // what the page's clock is ahead of the audio's; blocks are delivered late, never early
    node.port.onmessage = ({ data: { timeS, samples } }) => {
      const endS = timeS + samples.length / audio.sampleRate;
      aheadS = Math.min(aheadS + DRIFT, clockS() - endS);
      this.heard.push([timeS + aheadS, samples]);
      this.heardS += samples.length / audio.sampleRate;
      while (this.heardS > MOST_AUDIO_S) this.heardS -= this.heard.shift()[1].length / audio.sampleRate;
      this.sendAudio(audio.sampleRate);
    };
    source.connect(node);
    await audio.resume();
  }

  /** Send what was heard, all at once, when what was sent before has arrived. */
  async sendAudio(rate) {
    if (this.isSending || !this.heard.length) return;
    this.isSending = true;
    const blocks = this.heard;
    this.heard = [];
    this.heardS = 0;
    await this.post("audio", { time: blocks[0][0], rate }, new Blob(blocks.map(([, samples]) => samples)));
    this.isSending = false;
  }

  async post(name, about, body) {
    if (!this.isRunning) return;
    const query = new URLSearchParams({ ...about, page: this.id });
    try {
      const answer = await fetch(`${name}?${query}`, { method: "POST", body });
      if (answer.ok || !this.isRunning) return;
      this.stop();
      this.fail(answer.status === 409 ? "Another page gives its camera to this program. Stop it there, and try again."
        : `The program refused what the camera gave (${answer.status}).`);
    } catch {
      if (this.isRunning) this.stop(); // it has ended, which the page shows
    }
  }
}

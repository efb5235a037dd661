// In the thread of the audio: samples as they come, in blocks.

const BLOCK_S = 0.04;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(BLOCK_S * sampleRate));
    this.length = 0;
  }

  process([[channel]]) {
    for (const [i, value] of (channel ?? []).entries()) {
      if (!this.length) this.beganS = currentTime + i / sampleRate;
      this.block[this.length++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.length < this.block.length) continue;
      this.port.postMessage({ timeS: this.beganS, samples: this.block.slice() });
      this.length = 0;
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);

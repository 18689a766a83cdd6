/* Hands the samples of the microphone on, from the thread of the sound card. */

registerProcessor("samples", class extends AudioWorkletProcessor {
  process([[channel]]) {
    if (channel) this.port.postMessage(channel.slice());
    return true;
  }
});

/* The microphone: a recording becomes a WAV file in the browser, and goes with the message like any other file. */

import { html, useEffect, useRef, useState } from "./ui.js";

const MAX_SECONDS = 10;

export function Microphone({ heard, failed }) {
  const [on, set] = useState(false);
  const recording = useRef(null);
  useEffect(() => () => recording.current?.close(), []);
  const begin = async () => {
    try {
      recording.current = await record(end);
      set(true);
    } catch (error) {
      failed(`The microphone cannot be used: ${error.message}`);
    }
  };
  const end = () => {
    const wav = recording.current?.close();
    recording.current = null;
    set(false);
    if (wav) heard(new File([wav], "recording.wav", { type: "audio/wav" }));
  };
  return html`<button type="button" class="icon" aria-label=${on ? "End the recording" : "Record"} aria-pressed=${on}
    title=${on ? "End the recording" : `Record a sound of ${MAX_SECONDS} seconds at most`} onClick=${on ? end : begin}>${on ? "■" : "●"}</button>`;
}

/* Samples of the microphone until `close`, which gives them as a WAV file; `full` is called when there is no room for more. */
async function record(full) {
  if (!navigator.mediaDevices) throw new Error("the page must come from this machine or over HTTPS");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("./samples.js", import.meta.url));
  const node = new AudioWorkletNode(context, "samples", { numberOfOutputs: 0 });
  const parts = [];
  let count = 0, closed = false;
  node.port.onmessage = ({ data }) => {
    if (count < MAX_SECONDS * context.sampleRate) parts.push(data);
    count += data.length;
    if (count >= MAX_SECONDS * context.sampleRate && !closed) full();
  };
  context.createMediaStreamSource(stream).connect(node);
  return {
    close() {
      if (closed) return null;
      closed = true;
      stream.getTracks().forEach(track => track.stop());
      context.close();
      return parts.length ? wav(parts, context.sampleRate) : null;
    },
  };
}

/* 16 bits a sample, one channel; a third of the rate of most microphones is enough for speech. */
function wav(parts, rate) {
  const every = Math.max(1, Math.floor(rate / 16_000));
  const all = parts.flatMap(part => [...part]);
  const samples = Array.from({ length: Math.floor(all.length / every) }, (_, index) => {
    const group = all.slice(index * every, (index + 1) * every); // their mean keeps most of what is too high out
    return group.reduce((sum, value) => sum + value, 0) / every;
  });
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  const kept = Math.round(rate / every);
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, kept, true); view.setUint32(28, 2 * kept, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, index) => view.setInt16(44 + 2 * index, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new Blob([view]);
}

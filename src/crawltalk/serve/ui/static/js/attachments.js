/* What a person attaches to a message. Of documents the server makes texts; images and sounds go to the model as they are.
   The conversation keeps both. */

import { upload } from "./api.js";
import { html, number, plural } from "./ui.js";

const MAX_DOCUMENTS = 20, MAX_CHARACTERS = 1_000_000; // of a conversation, as they are sent with each question

const IMAGES = ["image/png", "image/jpeg", "image/webp", "image/gif"], SOUNDS = ["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"];
const MAX_MEDIA = 700_000, MAX_MEDIA_TOGETHER = 2_000_000; // bytes; the browser keeps a few megabytes for all conversations

/* The text of a file, {name, text}; or an image or a sound as a part of a message, {name, part}. */
export async function read(file) {
  const image = IMAGES.includes(file.type);
  if (!image && !SOUNDS.includes(file.type)) return upload("/api/document", { name: file.name }, file);
  if (file.size > MAX_MEDIA) throw new Error(`${file.name} has more than ${number(MAX_MEDIA)} bytes: attach a smaller one.`);
  const url = await new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
  const part = image ? { type: "image_url", image_url: { url } }
    : { type: "input_audio", input_audio: { data: url.slice(url.indexOf(",") + 1), format: "wav" } };
  return { name: file.name, part };
}

/* Why documents are too many for a conversation; nothing if they are not. */
export function excess(all) {
  if (all.length > MAX_DOCUMENTS) return `A conversation has ${MAX_DOCUMENTS} documents at most.`;
  const media = all.filter(one => one.part);
  if (media.length && media.length < all.length) return "Documents go with images or sounds in conversations of their own: begin a new one.";
  if (media.reduce((sum, one) => sum + JSON.stringify(one.part).length, 0) > MAX_MEDIA_TOGETHER) return "These are too many images and sounds for one conversation: begin a new one.";
  const characters = all.reduce((sum, one) => sum + (one.text?.length ?? 0), 0);
  return characters > MAX_CHARACTERS ? `The documents of a conversation have ${number(MAX_CHARACTERS)} characters at most together.` : "";
}

/* All that is attached in a conversation up to a message, in order; and the documents among it. */
export const attachments = nodes => nodes.flatMap(node => node.documents ?? []);
export const documents = nodes => attachments(nodes).filter(one => !one.part);

const about = one => one.part ? { image_url: "image", input_audio: "sound" }[one.part.type] : one.text === undefined ? "reading …" : plural(one.text.length, "character");

export function Chips({ attached, remove }) {
  if (!attached.length) return null;
  return html`<ul class="documents" aria-label="Documents">${attached.map((one, index) => html`<li key=${index} class="document">
    <span title=${one.name}>${one.name}</span> <span class="soft">${about(one)}</span>
    ${remove && html`<button type="button" class="icon" aria-label=${`Remove ${one.name}`} title="Remove" onClick=${() => remove(one)}>×</button>`}</li>`)}</ul>`;
}

/* How much of the documents the model has read, where that is not all. */
export function Cut({ reading }) {
  if (!reading || reading.read >= reading.characters) return null;
  return html`<p class="soft">The document is too long for this model: it read the ${number(reading.read)} of
    ${" "}${number(reading.characters)} characters that fit the question best.</p>`;
}

/* The sentence that an answer rests on; or, where its words do not stand in the document, what the document says. */
export function Basis({ citations, supported }) {
  if (!citations.length) return html`<p class="soft">This answer does not stand in the document.</p>`;
  return html`<div class="basis"><p class="soft">${supported ? "The document says:" : "The document does not say so in these words. What fits the question best there:"}</p>
    ${citations.map(({ title, quote }) => html`<blockquote><p>${quote}</p><footer class="soft">${title}</footer></blockquote>`)}</div>`;
}

/* Documents that a person attaches to a message: the server makes texts of files, the conversation keeps them. */

import { upload } from "./api.js";
import { html, number, plural } from "./ui.js";

const MAX_DOCUMENTS = 20, MAX_CHARACTERS = 1_000_000; // of a conversation, as they are sent with each question

/* The text of a file: {name, text}. */
export const read = file => upload("/api/document", { name: file.name }, file);

/* Why documents are too many for a conversation; nothing if they are not. */
export function excess(all) {
  if (all.length > MAX_DOCUMENTS) return `A conversation has ${MAX_DOCUMENTS} documents at most.`;
  const characters = all.reduce((sum, one) => sum + (one.text?.length ?? 0), 0);
  return characters > MAX_CHARACTERS ? `The documents of a conversation have ${number(MAX_CHARACTERS)} characters at most together.` : "";
}

/* The documents of a conversation up to a message, in order. */
export const documents = nodes => nodes.flatMap(node => node.documents ?? []);

export function Chips({ attached, remove }) {
  if (!attached.length) return null;
  return html`<ul class="documents" aria-label="Documents">${attached.map((one, index) => html`<li key=${index} class="document">
    <span title=${one.name}>${one.name}</span> <span class="soft">${one.text === undefined ? "reading …" : plural(one.text.length, "character")}</span>
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

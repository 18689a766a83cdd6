/* What a model thinks before it answers: <think> ... </think> in front of the answer, as DeepSeek-R1 and Qwen3 write it. */

import { html, plural } from "./ui.js";

const START = "<think>", END = "</think>";

/* {thought, answer} of a reply; no thought: undefined. `busy`: it is still written, so its end may be a part of a mark.
   A template may have opened the thinking in the prompt: then the reply has its end alone. */
export function parted(text, busy = false) {
  const rest = text.trimStart();
  const end = text.indexOf(END);
  if (busy && rest && START.startsWith(rest)) return { thought: "", answer: "" };
  if (!rest.startsWith(START) && end < 0) return { answer: text };
  const begun = rest.startsWith(START) ? text.indexOf(START) + START.length : 0;
  if (end < 0) return { thought: text.slice(begun, busy ? text.length - partOf(END, text) : text.length).trim(), answer: "" };
  return { thought: text.slice(begun, end).trim(), answer: text.slice(end + END.length).trimStart() };
}

/* How many characters at the end of a text may be the beginning of a mark. */
function partOf(mark, text) {
  for (let size = mark.length - 1; size > 0; size--) if (text.endsWith(mark.slice(0, size))) return size;
  return 0;
}

/* Open while the model thinks, folded when it answers; between the two it is as the person leaves it. */
export function Thought({ text, going }) {
  if (!text && !going) return null;
  const words = text.split(/\s+/).filter(Boolean).length;
  return html`<details class="tool thought" open=${going}><summary>${going ? "Thinking …" : `Thought for ${plural(words, "word")}`}</summary>
    <p class="thoughts">${text}</p></details>`;
}

/* A message without its thought: what later turns are told of it. */
export function withoutThought(node) {
  const { answer } = node.role === "assistant" && !node.calls?.length ? parted(node.content) : {};
  return answer ? { ...node, content: answer } : node;
}

/* The tokenizer page: a vocabulary cuts what is typed, and shows how. No library, no network; text goes in as text, never as HTML.
   `data` is what crawltalk.report.tokens_page writes: vocabularies, statistics, the words to begin with. */

const ALPHABET = (() => { // a printable character for each byte, as in GPT-2's files
  const plain = b => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(plain(b) ? b : next++));
})();
const BYTE = new Map(ALPHABET.map((character, byte) => [character, byte]));
const toPrintable = text => Array.from(new TextEncoder().encode(text), byte => ALPHABET[byte]).join("");
const toBytes = printable => Uint8Array.from(printable, character => BYTE.get(character));
const hex = printable => Array.from(toBytes(printable), b => b.toString(16).padStart(2, "0")).join(" ");

export class Vocabulary {
  /* words: printable tokens in the order of their ranks; ids: their ids, or null where id = rank; specials: name -> id */
  constructor({ name, words, ids, specials, pattern }) {
    Object.assign(this, { name, words, ids, specials });
    this.pattern = new RegExp(pattern, "gu");
    this.ranks = new Map(words.map((word, rank) => [word, rank]));
  }
  id(rank) { return this.ids ? this.ids[rank] : rank; }
  /* The steps in which a chunk is merged: lists of parts, each with the rank of what the step made; the first has none. */
  steps(chunk) {
    let parts = Array.from(toPrintable(chunk));
    const steps = [{ parts, made: null }];
    const whole = this.ranks.get(parts.join(""));
    for (;;) {
      let best = -1, rank = Infinity;
      for (let place = 0; place + 1 < parts.length; place++) {
        const found = this.ranks.get(parts[place] + parts[place + 1]);
        if (found !== undefined && found < rank) [best, rank] = [place, found];
      }
      if (best < 0) break;
      parts = [...parts.slice(0, best), parts[best] + parts[best + 1], ...parts.slice(best + 2)];
      steps.push({ parts, made: best, rank });
    }
    if (whole !== undefined && parts.length > 1) steps.push({ parts: [parts.join("")], made: 0, rank: whole });
    return steps;
  }
  encode(text) { // [{id, word}]
    const tokens = [];
    for (const [chunk] of text.matchAll(this.pattern)) {
      for (const word of this.steps(chunk).at(-1).parts) tokens.push({ id: this.id(this.ranks.get(word)), word });
    }
    return tokens;
  }
}

/* Elements without HTML strings. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const VISIBLE = { " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍" };
function visible(word) {
  const bytes = toBytes(word);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).replace(/[ \n\t\r]/g, character => VISIBLE[character]);
  } catch { // a part of a character
    return Array.from(bytes, b => `‹${b.toString(16).padStart(2, "0")}›`).join("");
  }
}

export function chips(tokens, withIds) {
  return make("div", { class: "chips" }, ...tokens.flatMap(({ id, word, special }, place) => {
    const label = special ?? visible(word);
    const title = special ? `control token ${special}, id ${id}` : `id ${id}, bytes ${hex(word)}`;
    const chip = make("span", { class: special ? "chip special" : `chip c${place % 5}`, title, tabindex: 0 }, label);
    if (withIds) chip.append(make("sub", {}, String(id)));
    return label.includes("⏎") ? [chip, make("br")] : [chip];
  }));
}

const bytesOf = text => new TextEncoder().encode(text).length;
const perToken = (text, tokens) => (bytesOf(text) / Math.max(1, tokens.length)).toFixed(2);

/* Section: a text in every vocabulary. */
function cutter(vocabularies, sample) {
  const area = make("textarea", { rows: 4, "aria-label": "Text to cut", spellcheck: "false" });
  area.value = sample;
  const ids = make("input", { type: "checkbox", id: "ids" });
  const out = make("div", { class: "sides" });
  const draw = () => out.replaceChildren(...vocabularies.map(vocabulary => {
    const tokens = vocabulary.encode(area.value);
    const line = `${tokens.length} tokens, ${perToken(area.value, tokens)} bytes per token`;
    return make("section", { class: "side" }, make("h3", {}, vocabulary.name), make("p", { class: "soft" }, line), chips(tokens, ids.checked));
  }));
  area.addEventListener("input", draw);
  ids.addEventListener("input", draw);
  draw();
  return [area, make("label", { class: "soft" }, ids, " show ids"), out];
}

/* Section: one word, merge by merge. */
function stepper(vocabularies, sample) {
  const word = make("input", { type: "text", "aria-label": "Word to build", value: sample, spellcheck: "false" });
  const choice = make("select", { "aria-label": "Vocabulary" }, ...vocabularies.map((v, i) => make("option", { value: i }, v.name)));
  const slider = make("input", { type: "range", min: 0, value: 0, "aria-label": "Step" });
  const out = make("div", { "aria-live": "polite" });
  const steps = () => vocabularies[choice.value].steps([...word.value.matchAll(vocabularies[choice.value].pattern)][0]?.[0] ?? "");
  const draw = () => {
    const all = steps();
    slider.max = all.length - 1;
    const shown = all.slice(0, Number(slider.value) + 1);
    out.replaceChildren(...shown.map(({ parts, made, rank }, number) => make("div", { class: "step" },
      make("span", { class: "soft" }, number ? `merge ${rank}` : "bytes"),
      ...parts.map((part, place) => make("span", { class: place === made ? "chip made" : "chip plain", title: hex(part) }, visible(part))))));
  };
  const restart = () => { slider.max = 1000; slider.value = 1000; draw(); };
  word.addEventListener("input", restart);
  choice.addEventListener("input", restart);
  slider.addEventListener("input", draw);
  restart();
  return [make("div", { class: "row" }, word, choice, slider), out];
}

/* Section: a conversation as ids. Content is cut as text; only the structure writes control tokens. */
export function render(vocabulary, chat, messages) {
  const special = name => ({ id: vocabulary.specials[name], special: name });
  const open = role => [special(chat.start), ...vocabulary.encode(role + (chat.role_end ? "" : chat.gap)),
    ...(chat.role_end ? [special(chat.role_end), ...vocabulary.encode(chat.gap)] : [])];
  const turns = messages.flatMap(({ role, content }) =>
    [...open(role), ...vocabulary.encode(content), special(chat.end), ...vocabulary.encode(chat.after)]);
  return [...(chat.begin ? [special(chat.begin)] : []), ...turns, ...open("assistant")];
}

function editor(vocabulary, chat, messages) {
  const list = make("div"), out = make("div"), summary = make("p", { class: "soft" });
  const draw = () => {
    const tokens = render(vocabulary, chat, messages);
    const controls = tokens.filter(token => token.special).length;
    summary.textContent = `${tokens.length} tokens, ${controls} of them control tokens; what is typed never becomes one`;
    out.replaceChildren(chips(tokens, false));
  };
  const rows = () => list.replaceChildren(...messages.map((message, place) => {
    const role = make("select", { "aria-label": "Role" }, ...["system", "user", "assistant"].map(name =>
      make("option", { value: name, ...(name === message.role ? { selected: "" } : {}) }, name)));
    const content = make("textarea", { rows: 2, "aria-label": "Message", spellcheck: "false" });
    content.value = message.content;
    role.addEventListener("input", () => { message.role = role.value; draw(); });
    content.addEventListener("input", () => { message.content = content.value; draw(); });
    const remove = make("button", { type: "button", "aria-label": "Remove the message",
      onclick: () => { messages.splice(place, 1); rows(); draw(); } }, "×");
    return make("div", { class: "row" }, role, content, remove);
  }));
  const add = make("button", { type: "button", onclick: () => { messages.push({ role: "user", content: "" }); rows(); draw(); } }, "Add a message");
  rows();
  draw();
  return [list, add, summary, out];
}

/* Section: what the model sees of a word's letters. */
function letters(vocabulary, words) {
  return words.map(word => make("div", { class: "step" },
    make("span", { class: "soft" }, `${word.replace(" ", "·")}: ${[...word.trim()].length} letters`), chips(vocabulary.encode(word), true)));
}

export function start(root, data) {
  const vocabularies = data.vocabularies.map(given => new Vocabulary(given));
  const [own] = vocabularies;
  const fill = (id, nodes) => root.querySelector(`#${id}`)?.append(...nodes);
  fill("cut", cutter(vocabularies, data.sample));
  fill("steps", stepper(vocabularies, data.word));
  if (data.chat) fill("chat", editor(own, data.chat, data.messages));
  fill("letters", letters(own, data.words));
}

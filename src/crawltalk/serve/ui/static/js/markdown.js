/* Markdown as elements. marked cuts the text into tokens; what they become is decided here, and HTML in a text stays text.
   Nothing is fetched: images are links, and links go nowhere but to http, https and mailto, and there as `flow.js` has it. */

import { lexer } from "../vendor/marked/marked.esm.js";
import { Code } from "./code.js";
import { Link, parsed, Released } from "./flow.js";
import { html, useMemo } from "./ui.js";

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", ndash: "–", mdash: "—", copy: "©" };

/* `breaks`: a line that ends in the text ends on the screen, as in what people and models write. `released`: the addresses that its
   links lead to at once; null: any. */
export function Markdown({ text, breaks = true, released = null }) {
  const content = useMemo(() => blocks(lexer(text, { gfm: true, breaks })), [text, breaks]);
  return html`<${Released.Provider} value=${released}><div class="prose">${content}</div><//>`;
}

const BLOCKS = {
  space: () => null,
  def: () => null,
  hr: () => html`<hr />`,
  heading: token => html`<${`h${Math.min(6, token.depth + 2)}`}>${inline(token.tokens)}<//>`, // below the page's own headings
  paragraph: token => html`<p>${inline(token.tokens)}</p>`,
  text: token => token.tokens ? inline(token.tokens) : decoded(token.text),
  code: token => html`<${Code} text=${token.text} language=${token.lang ?? ""} />`,
  blockquote: token => html`<blockquote>${blocks(token.tokens)}</blockquote>`,
  list: token => html`<${token.ordered ? "ol" : "ul"} ...${token.ordered ? { start: token.start } : {}}>
    ${token.items.map(item => html`<li>${blocks(item.tokens)}</li>`)}<//>`,
  checkbox: token => token.checked ? "☑ " : "☐ ",
  table: token => html`<div class="wide" tabindex="0" role="region" aria-label="Table"><table>
    <thead><tr>${token.header.map(cell => html`<th class=${side(cell)}>${inline(cell.tokens)}</th>`)}</tr></thead>
    <tbody>${token.rows.map(row => html`<tr>${row.map(cell => html`<td class=${side(cell)}>${inline(cell.tokens)}</td>`)}</tr>`)}</tbody>
  </table></div>`,
  html: token => html`<p class="verbatim">${token.raw}</p>`,
};

const INLINE = {
  text: token => token.tokens ? inline(token.tokens) : decoded(token.text),
  escape: token => token.text,
  strong: token => html`<strong>${inline(token.tokens)}</strong>`,
  em: token => html`<em>${inline(token.tokens)}</em>`,
  del: token => html`<del>${inline(token.tokens)}</del>`,
  codespan: token => html`<code>${token.text}</code>`,
  br: () => html`<br />`,
  link: token => link(token.href, inline(token.tokens), token.text),
  image: token => link(token.href, `image: ${token.text || token.href}`, token.text || token.href),
  checkbox: BLOCKS.checkbox,
};

const blocks = tokens => tokens.map(token => (BLOCKS[token.type] ?? INLINE[token.type] ?? asText)(token));
const inline = tokens => tokens.map(token => (INLINE[token.type] ?? asText)(token));
const asText = token => token.raw;
const side = cell => cell.align ? `to-${cell.align}` : null;

/* A link that a person can follow; anything else is its text. */
function link(address, content, words) {
  const url = parsed(address);
  if (!["http:", "https:", "mailto:"].includes(url?.protocol)) return content;
  return html`<${Link} url=${url} content=${content} words=${words} />`;
}

/* Character references, which a browser would decode if it got HTML. */
function decoded(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z]{2,8}));/gi, (whole, decimal, hex, name) => {
    if (name) return ENTITIES[name] ?? whole;
    const point = decimal ? Number(decimal) : parseInt(hex, 16);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}

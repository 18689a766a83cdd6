/* What of an answer stands word for word in the training data, and where. */

import { post } from "./api.js";
import { html, plural, pressed, Problem, useAsync, useState } from "./ui.js";

export function Sources({ text }) {
  const trace = useAsync(signal => post("/api/trace", { text }, signal), [text]);
  const [chosen, choose] = useState(null);
  if (trace.error) return html`<${Problem} text=${trace.error} />`;
  if (!trace.value) return html`<p class="soft">Looking through the training data …</p>`;
  const { spans } = trace.value;
  const span = spans[chosen];
  return html`
    <p class="said traced">${pieces(Array.from(text), spans).map(({ piece, index }) => index === null ? piece
      : html`<span class="span" aria-pressed=${chosen === index} ...${pressed(() => choose(chosen === index ? null : index))}>${piece}</span>`)}</p>
    <p class="soft">${spans.length ? `${plural(spans.length, "passage")} of this answer ${spans.length === 1 ? "stands" : "stand"} word for word in the training data. Choose one.`
      : "No long passage of this answer stands word for word in the training data."}</p>
    ${span && html`<section class="origins" aria-label="Pages with this passage">
      <p>${plural(span.count, "time")} in the training data, on ${plural(span.pages, "page")}${span.pages > span.documents.length ? ", such as" : ""}:</p>
      ${span.documents.map(page => html`<article><h3>${page.title}</h3><p class="address">${page.url}</p><p>… ${page.excerpt} …</p></article>`)}
    </section>`}`;
}

/* The text as pieces; `index`: the span that a piece is, or null. Positions count characters, not UTF-16 units. */
function pieces(characters, spans) {
  const cut = [];
  let end = 0;
  spans.forEach((span, index) => {
    cut.push({ piece: characters.slice(end, span.start).join(""), index: null });
    cut.push({ piece: characters.slice(span.start, span.end).join(""), index });
    end = span.end;
  });
  return [...cut, { piece: characters.slice(end).join(""), index: null }];
}

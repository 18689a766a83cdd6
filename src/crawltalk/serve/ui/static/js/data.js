/* The data of a run: what is left of the crawl after each step, what was dropped and why, and a search over what stayed. */

import { get } from "./api.js";
import { bytes, html, number, plural, Problem, useAsync, useEffect, useState } from "./ui.js";

const PARTS = { "": "Funnel", dropped: "Dropped", documents: "Documents", search: "Search" };
const STEPS = {
  crawl: "in the crawl", broken: "readable", url: "of wanted addresses", early_language: "of the language, by a first look", extraction: "with a main text",
  language: "of the language", quality: "of quality", duplicate: "not seen before", pii: "without personal data",
};

export function Data({ part, query }) {
  const funnel = useAsync(() => get("/api/data/funnel"), []);
  const shown = Object.hasOwn(PARTS, part) ? part : "";
  return html`<main id="main" tabindex="-1" class="page">
    <h1>Data</h1>
    <p class="lead">From raw pages to documents: every page that was dropped can be read here, with the reason.</p>
    <nav class="tabs" aria-label="Parts">${Object.entries(PARTS).map(([name, title]) =>
      html`<a href=${`#/data/${name}`} aria-current=${name === shown ? "page" : null}>${title}</a>`)}</nav>
    <${Problem} text=${funnel.error} />
    ${funnel.value && !shown && html`<${Funnel} record=${funnel.value} />`}
    ${funnel.value && shown === "dropped" && html`<${Dropped} removed=${funnel.value.removed} step=${query.step ?? ""} reason=${query.reason ?? ""} />`}
    ${funnel.value && shown === "documents" && html`<${List} kind="documents" />`}
    ${funnel.value && shown === "search" && html`<${Search} words=${query.words ?? ""} />`}
  </main>`;
}

const address = (step, reason) => `#/data/dropped?${new URLSearchParams({ step, ...(reason ? { reason } : {}) })}`;

function Funnel({ record }) {
  const { steps } = record;
  const first = steps[0].pages;
  return html`
    <ol class="funnel">${steps.map(({ step, pages, ...size }, index) => {
      const gone = index ? steps[index - 1].pages - pages : 0;
      return html`<li><span class="name">${STEPS[step] ?? step}</span>
        <span class="meter" aria-hidden="true"><span style=${{ width: `${100 * pages / first}%` }}></span></span>
        <span class="count"><strong>${number(pages)}</strong> <span class="soft">${"bytes" in size ? bytes(size.bytes) : `${number(size.characters)} characters`}</span></span>
        <span class="gone">${gone > 0 && html`<a href=${address(step)}>−${number(gone)}</a>`}</span></li>`;
    })}</ol>
    <h2>Why pages went</h2>
    <${Reasons} removed=${record.removed} />
    <div class="pair">
      <${Counts} title="Languages" counts=${record.languages} /><${Counts} title="Hosts of the documents" counts=${record.hosts.documents} />
    </div>`;
}

function Reasons({ removed }) {
  const [all, show] = useState(false);
  const rows = [...removed].sort((a, b) => b.pages - a.pages);
  return html`<table class="reasons"><thead><tr><th>step</th><th>reason</th><th class="to-right">pages</th></tr></thead>
    <tbody>${rows.slice(0, all ? 500 : 12).map(({ step, reason, pages }) => html`<tr><td>${step}</td>
      <td><a href=${address(step, reason)}>${reason}</a></td><td class="to-right">${number(pages)}</td></tr>`)}</tbody></table>
    ${rows.length > 12 && html`<button type="button" onClick=${() => show(!all)}>${all ? "Show fewer" : `Show all ${rows.length} reasons`}</button>`}`;
}

function Counts({ title, counts }) {
  const rows = Object.entries(counts).slice(0, 10);
  const max = Math.max(1, ...rows.map(([, count]) => count));
  return html`<section><h2>${title}</h2><ol class="counts">${rows.map(([name, count]) => html`<li><span class="name" title=${name}>${name}</span>
    <span class="meter" aria-hidden="true"><span style=${{ width: `${100 * count / max}%` }}></span></span><span class="to-right">${number(count)}</span></li>`)}</ol></section>`;
}

function Dropped({ removed, step, reason }) {
  const steps = [...new Set(removed.map(row => row.step))];
  const reasons = removed.filter(row => row.step === step).sort((a, b) => b.pages - a.pages);
  const go = (step, reason) => { location.hash = step ? address(step, reason) : "#/data/dropped"; };
  return html`<div class="filters">
      <div class="field"><label for="step">Step</label><select id="step" value=${step} onChange=${event => go(event.currentTarget.value)}>
        <option value="">all</option>${steps.map(name => html`<option value=${name} selected=${name === step}>${name}</option>`)}</select></div>
      ${step && html`<div class="field"><label for="reason">Reason</label><select id="reason" value=${reason} onChange=${event => go(step, event.currentTarget.value)}>
        <option value="">all</option>${reasons.map(row => html`<option value=${row.reason} selected=${row.reason === reason}>${row.reason} (${number(row.pages)})</option>`)}</select></div>`}
    </div>
    <${List} key=${`${step}/${reason}`} kind="removed" step=${step} reason=${reason} />`;
}

/* Pages of a kind, from the front on; more on request. */
function List({ kind, step, reason }) {
  const [from, go] = useState("");
  const [rows, set] = useState([]);
  const response = useAsync(signal => get("/api/data/rows", { kind, step, reason, start: from }, signal), [from]);
  useEffect(() => { if (response.value && !response.busy) set([...rows, ...response.value.rows]); }, [response.value]);
  return html`<${Problem} text=${response.error} />
    <ul class="pages">${rows.map(row => html`<${Entry} key=${row.place} kind=${kind} row=${row} text=${row.text} />`)}</ul>
    ${response.value?.next && html`<button type="button" disabled=${response.busy} onClick=${() => go(response.value.next)}>Show more</button>`}
    ${!response.busy && !response.value?.next && !response.error && html`<p class="soft">${rows.length ? `${plural(rows.length, "page")}; that is all.` : "There is no such page."}</p>`}`;
}

function Entry({ kind, row, text }) {
  const [open, set] = useState(false);
  return html`<li class="entry"><h2><button type="button" aria-expanded=${open} onClick=${() => set(!open)}>${row.title || row.url}</button></h2>
    <p class="address">${row.url}</p>
    ${kind === "removed" && html`<p class="why"><span class="tag">${row.step}</span> ${row.reason}${row.detail && html` <span class="soft">${row.detail}</span>`}</p>`}
    ${open ? html`<${Whole} kind=${kind} place=${row.place} />` : text && html`<p class="excerpt">${text}${text.length >= 240 && "…"}</p>`}</li>`;
}

function Whole({ kind, place }) {
  const response = useAsync(signal => get("/api/data/page", { kind, place }, signal), [kind, place]);
  if (response.error) return html`<${Problem} text=${response.error} />`;
  if (!response.value) return null;
  const { title, text, characters, language, date } = response.value;
  if (!title && !text) return html`<p class="soft">It was dropped before it had a main text.</p>`;
  return html`<div class="whole"><p class="soft">${[language, date?.slice(0, 10), `${number(characters)} characters`].filter(Boolean).join(" · ")}</p>
    ${(text || title).split("\n").map(line => html`<p>${line}</p>`)}
    ${characters > text.length && html`<p class="soft">The rest is not shown.</p>`}</div>`;
}

function Search({ words }) {
  const [typed, type] = useState(words);
  const [offset, go] = useState(0);
  const [wait, again] = useState(0);
  const response = useAsync(signal => words ? get("/api/data/search", { words, offset }, signal) : Promise.resolve(null), [words, offset, wait]);
  const { indexing, rows, count } = response.value ?? {};
  useEffect(() => {
    if (!indexing) return;
    const timer = setTimeout(() => again(wait + 1), 700);
    return () => clearTimeout(timer);
  }, [response.value]);
  const submit = event => {
    event.preventDefault();
    go(0);
    location.hash = `#/data/search?${new URLSearchParams({ words: typed })}`;
  };
  return html`<form class="search" role="search" onSubmit=${submit}>
      <input type="search" aria-label="Words to search for" placeholder='Words, or "several in a row"' value=${typed} onInput=${event => type(event.currentTarget.value)} />
      <button type="submit" class="main">Search</button></form>
    <${Problem} text=${response.error} />
    <p class="soft" role="status">${indexing ? `The index is made once: ${number(indexing.done)} of ${number(indexing.of)} documents.`
      : rows && `${plural(count, "document")}${count > rows.length ? `, ${offset + 1} to ${offset + rows.length}` : ""}`}</p>
    ${rows && html`<ul class="pages">${rows.map(row => html`<${Entry} key=${row.place} kind="documents" row=${row} text=${marked(row.snippet)} />`)}</ul>
      <div class="actions">${offset > 0 && html`<button type="button" onClick=${() => go(offset - 20)}>Before</button>`}
        ${offset + rows.length < count && html`<button type="button" onClick=${() => go(offset + 20)}>Next</button>`}</div>`}`;
}

/* Each match stands between two control characters. */
const marked = snippet => snippet.split("\u0002").flatMap((piece, index) => {
  const [match, rest] = index ? piece.split("\u0003") : [null, piece];
  return [match && html`<mark>${match}</mark>`, rest];
});

/* The runs beside the served one: their stages, what each was made from, and their curves, live. */

import { get } from "./api.js";
import { Curves, MAX_RUNS, POLL } from "./curves.js";
import { bytes, html, number, Problem, useAsync, useEvery, useState } from "./ui.js";

const STATES = { fresh: "up to date", borrowed: "of another run", stale: "out of date", partial: "in the making", absent: "not yet" };
const SHOWN_METRICS = 7; // metrics of a stage that are always shown

export function RunsPage({ part }) {
  const runs = useAsync(() => get("/api/runs"), []);
  const [beside, set] = useState([]);
  const { served, runs: names = [] } = runs.value ?? {};
  const name = names.includes(decodeURIComponent(part)) ? decodeURIComponent(part) : served;
  const toggle = other => set(beside.includes(other) ? beside.filter(one => one !== other) : [...beside, other].slice(-MAX_RUNS + 1));
  return html`<main id="main" tabindex="-1" class="page">
    <h1>Runs</h1>
    <p class="lead">A run is a folder of stages. Each stage is made from those before it, and says from which.</p>
    <${Problem} text=${runs.error} />
    ${names.length > 1 && html`<ul class="runs" aria-label="Runs">${names.map(other => html`<li>
      <a href=${`#/runs/${encodeURIComponent(other)}`} aria-current=${other === name ? "page" : null}>${other}</a>${other === served && html` <span class="tag">served</span>`}
      ${other !== name && html`<label class="check"><input type="checkbox" checked=${beside.includes(other)} onChange=${() => toggle(other)} />
        compare<span class="unseen"> with ${other}</span></label>`}</li>`)}</ul>`}
    ${name && html`<${Run} key=${name} name=${name} beside=${beside.filter(other => other !== name)} />`}
  </main>`;
}

function Run({ name, beside }) {
  const [tick, beat] = useState(0);
  const response = useAsync(signal => get("/api/runs/stages", { run: name }, signal), [tick]);
  const { stages = [], error, about } = response.value ?? {};
  useEvery(POLL, () => beat(tick + 1), [tick]);
  if (response.error || error) return html`<${Problem} text=${response.error ?? error} />`;
  return html`<h2>${name}</h2><p class="soft">${about}</p>
    ${stages.filter(stage => stage.makes).map(({ stage }) => html`<${Curves} key=${stage} stage=${stage} runs=${[name, ...beside]} />`)}
    ${stages.length > 0 && html`<h2>Stages</h2><ul class="stages">${stages.map(stage => html`<${Stage} key=${stage.stage} stage=${stage} stages=${stages} />`)}</ul>`}`;
}

function Stage({ stage, stages }) {
  const { stage: name, about, state, reasons, seconds, cpu_seconds: cpu, peak_memory_bytes: memory, metrics = {}, inputs = {}, fingerprint, going } = stage;
  const figures = Object.entries(metrics).map(([key, value]) => html`<div key=${key}><dt>${key.replaceAll("_", " ")}</dt><dd>${number(value)}</dd></div>`);
  const now = Object.fromEntries(stages.map(other => [other.stage, other.fingerprint]));
  return html`<li class="card"><h3>${name} <span class=${`tag ${state}`}>${STATES[state]}</span>${going && state !== "partial" && html` <span class="tag partial">being made anew</span>`}</h3>
    <p class="soft">${about}</p>
    ${reasons.map(reason => html`<p class="why">${reason}</p>`)}
    ${fingerprint && html`<dl class="figures">
      <div><dt>time</dt><dd>${clock(seconds)}</dd></div><div><dt>CPU</dt><dd>${clock(cpu)}</dd></div><div><dt>memory</dt><dd>${bytes(memory)}</dd></div>
      ${figures.slice(0, SHOWN_METRICS)}</dl>
      ${figures.length > SHOWN_METRICS && html`<details><summary>${figures.length - SHOWN_METRICS} more</summary><dl class="figures">${figures.slice(SHOWN_METRICS)}</dl></details>`}
    <p class="lineage"><code>${name} ${fingerprint.slice(0, 8)}</code>${Object.keys(inputs).length > 0 && html`<span class="soft">made from</span>`}
      ${Object.entries(inputs).map(([input, print]) => html`<code class=${print === now[input] ? "same" : "other"}
        title=${print === now[input] ? `the ${input} that is there now` : `another ${input} than the one that is there now`}>${input} ${print.slice(0, 8)}</code>`)}</p>`}</li>`;
}

const clock = seconds => seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;

/* The runs beside the served one: their stages, what each was made from, and their curves, live. */

import { get } from "./api.js";
import { bytes, html, number, Problem, scripts, useAsync, useEffect, useEvery, useRef, useState } from "./ui.js";

const POLL = 2; // seconds
const TITLES = { pretrain: "Pretraining", sft: "Fine-tuning" }; // of curves; other stages go by their names
const STATES = { fresh: "up to date", borrowed: "of another run", stale: "out of date", partial: "in the making", absent: "not yet" };
const MAX_RUNS = 6; // runs in one chart
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

/* The logs of a stage in several runs; each goes on from the byte where it was. */
function useLogs(stage, runs) {
  const [logs, set] = useState({});
  const known = useRef({});
  const read = async () => {
    for (const run of runs) {
      const log = known.current[run] ??= { rows: [], next: 0 };
      for (let more = true; more;) {
        const part = await get("/api/runs/log", { run, stage, start: log.next }).catch(() => null); // the page says why elsewhere
        if (!part) return;
        more = part.rows.length > 0;
        log.rows = part.start === log.next ? [...log.rows, ...part.rows] : part.rows; // a training began anew
        log.next = part.next;
      }
    }
    set({ ...known.current });
  };
  useEffect(() => { read(); }, [runs.join()]);
  useEvery(POLL, read, [runs.join()]);
  return logs;
}

function Curves({ stage, runs }) {
  const logs = useLogs(stage, runs);
  const lines = runs.flatMap((run, index) => {
    const name = runs.length > 1 ? `${run}: ` : "";
    const rows = logs[run]?.rows ?? [];
    const measured = Object.keys(rows.find(row => Object.keys(row).some(isLossOfFile)) ?? {}).filter(isLossOfFile);
    return [line(`${name}loss`, rows, "loss", index, false), line(`${name}bits per byte, validation`, rows, "val_bpb", index, true),
      ...measured.map(key => line(`${name}loss of ${key.slice(9)}, validation`, rows, key, index, true))];
  }).filter(one => one.x.length > 0);
  if (!lines.length) return null;
  return html`<h2>${TITLES[stage] ?? stage}</h2><${Chart} label=${lines.map(spoken).join("; ")} lines=${lines} />`;
}

const isLossOfFile = key => key.startsWith("val_loss.");

function line(label, rows, key, index, dashed) {
  const kept = rows.filter(row => typeof row[key] === "number");
  return { label, index, dashed, x: kept.map(row => row.step), y: kept.map(row => row[key]) };
}

const spoken = ({ label, x, y }) => `${label} ${y.at(-1).toFixed(3)} at step ${x.at(-1)}`;

function Chart({ label, lines }) {
  const [ready, set] = useState(Boolean(window.uPlot));
  const box = useRef(null);
  const chart = useRef(null);
  const shape = lines.map(one => one.label).join();
  useEffect(() => { scripts(["uplot/uPlot.iife.min.js"]).then(() => set(true), () => {}); }, []);
  useEffect(() => {
    if (!ready) return;
    const draw = () => {
      chart.current?.destroy();
      chart.current = new uPlot(options(box.current, lines), joined(lines), box.current);
    };
    draw();
    const size = new ResizeObserver(() => chart.current.setSize({ width: box.current.clientWidth, height: 260 }));
    const theme = new MutationObserver(draw);
    size.observe(box.current);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => { size.disconnect(); theme.disconnect(); chart.current.destroy(); };
  }, [ready, shape]);
  useEffect(() => { if (chart.current) chart.current.setData(joined(lines)); });
  return html`<div class="chart" role="img" aria-label=${label} ref=${box}></div>`;
}

const joined = lines => uPlot.join(lines.map(one => [one.x, one.y]));

function options(box, lines) {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue(`--${name}`).trim();
  const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return {
    width: box.clientWidth, height: 260, scales: { x: { time: false } }, axes: [axis, { ...axis, size: 44 }], cursor: { y: false },
    series: [{ label: "step" }, ...lines.map(({ label, index, dashed }) => ({
      label, stroke: colour(`line${index % MAX_RUNS}`), width: dashed ? 2 : 1.5, dash: dashed ? [6, 4] : undefined, spanGaps: true,
      points: { show: dashed }, value: (_, value) => value === null || value === undefined ? "–" : value.toFixed(3),
    }))],
  };
}

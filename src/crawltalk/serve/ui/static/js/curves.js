/* The curves of a training, live: its losses, and every figure that its log has. */

import { get } from "./api.js";
import { Rollouts } from "./rollouts.js";
import { html, number, percent, scripts, useEffect, useEvery, useRef, useState } from "./ui.js";

export const POLL = 2; // seconds
export const MAX_RUNS = 6; // runs in one chart
const TITLES = { pretrain: "Pretraining", sft: "Fine-tuning", grpo: "Reinforcement" }; // other stages go by their names
const LOSSES = /^(step|loss|val_bpb|val_loss)($|[.])/; // have a chart of their own
const FIGURES = {
  reward: "reward of a reply",
  accuracy: "share of right replies; dashed: to problems that are never trained on",
  length: "tokens of a reply; dashed: to problems that are never trained on",
  pass_at_k: "share of problems with a right reply",
  entropy: "entropy, nats a token",
  kl: "divergence from the model that it started from, nats a token",
  clip_share: "share of tokens whose ratio was clipped",
  groups_without_signal: "share of problems whose replies were all worth the same",
  truncated: "share of replies cut at the limit of tokens",
  not_judged: "share of replies without a reward",
  sampler_difference: "mean difference of log-probability between sampler and trainer",
  rollout_tokens_per_second: "tokens a second, sampled",
  tokens_per_second: "tokens a second, trained",
  norm: "norm of the gradient",
  lr_factor: "learning rate, share of its peak",
}; // in the order of the page
const MAX_SAMPLER_DIFFERENCE = 0.02; // nats, as in posttraining/reinforce.py
const ENTROPY_LEFT = 0.1; // share of the entropy at the beginning
const MANY_CUT = 0.5; // share of the replies

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

export function Curves({ stage, runs }) {
  const logs = useLogs(stage, runs);
  const rows = logs[runs[0]]?.rows ?? [];
  const reinforced = rows.some(row => "reward" in row);
  const figures = figuresOf(rows);
  if (!rows.length) return null;
  return html`<section class="curves"><h2>${TITLES[stage] ?? stage}</h2>
    ${reinforced ? html`<${Alarms} rows=${rows} /><${Figures} names=${figures} logs=${logs} runs=${runs} />
      <${Rollouts} run=${runs[0]} stage=${stage} />`
    : html`<${Losses} logs=${logs} runs=${runs} />
      ${figures.length > 0 && html`<${Folded} title="All figures of the log"><${Figures} names=${figures} logs=${logs} runs=${runs} /><//>`}`}
  </section>`;
}

/* The names of what a log counts, the parts of one figure together: accuracy with accuracy.addition. */
function figuresOf(rows) {
  const names = new Set(rows.flatMap(row => Object.keys(row).filter(key => typeof row[key] === "number" && !LOSSES.test(key))).map(head));
  names.delete("step");
  const known = Object.keys(FIGURES);
  const place = name => known.includes(name) ? known.indexOf(name) : known.length;
  return [...names].sort((a, b) => place(a) - place(b));
}

const head = key => key.split(".")[0];

/* What is folded is drawn when it is opened. */
function Folded({ title, children }) {
  const [open, set] = useState(false);
  return html`<details onToggle=${event => set(event.currentTarget.open)}><summary>${title}</summary>${open && children}</details>`;
}

/* A small chart for each figure. */
function Figures({ names, logs, runs }) {
  return html`<div class="figures-grid">${names.map(name => {
    const lines = runs.flatMap((run, index) => {
      const rows = logs[run]?.rows ?? [];
      const keys = [...new Set(rows.flatMap(row => Object.keys(row).filter(key => head(key) === name)))];
      return keys.map(key => line(`${runs.length > 1 ? `${run}: ` : ""}${key.replaceAll("_", " ")}`, rows, key, index, key !== name));
    }).filter(one => one.x.length > 0);
    return lines.length > 0 && html`<figure key=${name}><figcaption>${FIGURES[name] ?? name.replaceAll("_", " ")}</figcaption>
      <${Chart} label=${lines.map(spoken).join("; ")} lines=${lines} height=${170} /></figure>`;
  })}</div>`;
}

/* What in the newest rows of a reinforcement asks for a person. */
function Alarms({ rows }) {
  const steps = rows.filter(row => "reward" in row);
  const last = steps.at(-1) ?? {};
  const begun = mean(steps.slice(0, 5).map(row => row.entropy));
  const said = [
    last.loss === null && "The loss is no number: go back to a checkpoint, with a smaller learning rate.",
    last.not_judged > 0 && `${percent(last.not_judged)} of the last replies got no reward; the verdicts below say why.`,
    steps.length > 2 && steps.slice(-3).every(row => row.groups_without_signal === 1)
      && "All replies to each problem were worth the same three times in a row, so nothing is learned: other problems, or more replies to each.",
    last.sampler_difference > MAX_SAMPLER_DIFFERENCE
      && `What samples and what trains differ by ${number(last.sampler_difference)} nats a token: both should compute in one precision.`,
    steps.length > 10 && last.entropy < ENTROPY_LEFT * begun
      && `The entropy has fallen from ${number(begun)} to ${number(last.entropy)} nats a token: the replies are becoming all alike.`,
    last.truncated > MANY_CUT && `${percent(last.truncated)} of the last replies were cut at the limit of tokens.`,
  ].filter(Boolean);
  return said.length > 0 && html`<ul class="alarms" role="status" aria-label="Alarms">${said.map(text => html`<li class="problem">${text}</li>`)}</ul>`;
}

const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

function Losses({ logs, runs }) {
  const lines = runs.flatMap((run, index) => {
    const name = runs.length > 1 ? `${run}: ` : "";
    const rows = logs[run]?.rows ?? [];
    const measured = Object.keys(rows.find(row => Object.keys(row).some(isLossOfFile)) ?? {}).filter(isLossOfFile);
    return [line(`${name}loss`, rows, "loss", index, false), line(`${name}bits per byte, validation`, rows, "val_bpb", index, true),
      ...measured.map(key => line(`${name}loss of ${key.slice(9)}, validation`, rows, key, index, true))];
  }).filter(one => one.x.length > 0);
  return lines.length > 0 && html`<${Chart} label=${lines.map(spoken).join("; ")} lines=${lines} height=${260} />`;
}

const isLossOfFile = key => key.startsWith("val_loss.");

function line(label, rows, key, index, dashed) {
  const kept = rows.filter(row => typeof row[key] === "number");
  return { label, index, dashed, x: kept.map(row => row.step), y: kept.map(row => row[key]) };
}

const spoken = ({ label, x, y }) => `${label} ${y.at(-1).toFixed(3)} at step ${x.at(-1)}`;

function Chart({ label, lines, height }) {
  const [ready, set] = useState(Boolean(window.uPlot));
  const box = useRef(null);
  const chart = useRef(null);
  const shape = lines.map(one => one.label).join();
  useEffect(() => { scripts(["uplot/uPlot.iife.min.js"]).then(() => set(true), () => {}); }, []);
  useEffect(() => {
    if (!ready) return;
    const draw = () => {
      chart.current?.destroy();
      chart.current = new uPlot(options(box.current, lines, height), joined(lines), box.current);
    };
    draw();
    const size = new ResizeObserver(() => chart.current.setSize({ width: box.current.clientWidth, height }));
    const theme = new MutationObserver(draw);
    size.observe(box.current);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => { size.disconnect(); theme.disconnect(); chart.current.destroy(); };
  }, [ready, shape]);
  useEffect(() => { if (chart.current) chart.current.setData(joined(lines)); });
  return html`<div class="chart" role="img" aria-label=${label} ref=${box}></div>`;
}

const joined = lines => uPlot.join(lines.map(one => [one.x, one.y]));

function options(box, lines, height) {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue(`--${name}`).trim();
  const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return {
    width: box.clientWidth, height, scales: { x: { time: false } }, axes: [axis, { ...axis, size: 44 }], cursor: { y: false },
    series: [{ label: "step" }, ...lines.map(({ label, index, dashed }) => ({
      label, stroke: colour(`line${index % MAX_RUNS}`), width: dashed ? 2 : 1.5, dash: dashed ? [6, 4] : undefined, spanGaps: true,
      points: { show: dashed }, value: (_, value) => value === null || value === undefined ? "–" : value.toFixed(3),
    }))],
  };
}

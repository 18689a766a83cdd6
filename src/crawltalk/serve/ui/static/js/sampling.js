/* How the next token is chosen: the controls, the body of a request, and what temperature and the cuts do to a distribution. */

import { Field, html, number, Slider } from "./ui.js";

export const DEFAULTS = { temperature: 0.3, top_p: 1, top_k: 0, min_p: 0, max_tokens: 256, seed: "" };

const CONTROLS = [
  ["temperature", "Temperature", 0, 2, 0.05, "0 always takes the likeliest token", value => value.toFixed(2)],
  ["top_k", "Top-k", 0, 100, 1, "only the k likeliest tokens", value => value || "all"],
  ["top_p", "Top-p", 0.05, 1, 0.01, "only the likeliest that together reach p", value => value === 1 ? "all" : value.toFixed(2)],
  ["min_p", "Min-p", 0, 0.5, 0.01, "only those of at least this share of the likeliest", value => value ? value.toFixed(2) : "all"],
  ["max_tokens", "Most tokens", 8, 2048, 8, "", number],
];

export function Controls({ prefix, settings, change }) {
  return html`
    ${CONTROLS.map(([name, label, min, max, step, hint, shown]) => html`<${Slider} key=${name} id=${`${prefix}-${name}`} label=${label}
      hint=${hint} min=${min} max=${max} step=${step} value=${settings[name]} shown=${shown(settings[name])}
      onChange=${value => change({ [name]: value })} />`)}
    <${Field} id=${`${prefix}-seed`} label="Seed" hint="the same seed, the same answer; empty: another one each time">
      <input id=${`${prefix}-seed`} type="number" min="0" step="1" value=${settings.seed} aria-describedby=${`${prefix}-seed-hint`}
        onInput=${event => change({ seed: event.currentTarget.value })} /><//>`;
}

export function body({ model, temperature, top_p, top_k, min_p, max_tokens, seed }) {
  return { model, temperature, top_p, top_k, min_p, max_tokens, ...(seed === "" ? {} : { seed: Number(seed) }) };
}

/* rows: [{token, logprob}], likeliest first, of a vocabulary of `size`. Returns the probabilities at this temperature, how many rows each
   cut leaves, and the probabilities among those that all of them leave.
   The tokens beyond the rows are taken as equally likely, since only their sum is known. */
export function chosen(rows, { temperature, top_k, top_p, min_p }, size) {
  const known = rows.map(row => Math.exp(row.logprob));
  const others = Math.max(1, size - rows.length);
  const rest = Math.max(0, 1 - sum(known));
  const heat = p => temperature ? p ** (1 / temperature) : 0;
  const total = sum(known.map(heat)) + others * heat(rest / others);
  const hot = temperature ? known.map(p => heat(p) / total) : known.map((_, index) => Number(index === 0));
  const cuts = { "top-k": top_k ? Math.min(top_k, rows.length) : null };
  const head = hot.slice(0, cuts["top-k"] ?? undefined);
  const share = top_k ? sum(head) : 1;
  let reached = 0;
  const crossing = head.findIndex(p => (reached += p / share) >= top_p);
  cuts["top-p"] = top_p < 1 ? (crossing < 0 ? rows.length : crossing + 1) : null;
  cuts["min-p"] = min_p ? hot.filter(p => p >= min_p * hot[0]).length : null;
  const left = Math.min(rows.length, ...Object.values(cuts).filter(cut => cut !== null));
  const cut = Object.values(cuts).some(value => value !== null);
  const kept = cut ? sum(hot.slice(0, left)) : 1;
  return { hot, cuts, left: cut ? left : rows.length, final: hot.map((p, index) => index < left ? p / kept : 0) };
}

const sum = values => values.reduce((a, b) => a + b, 0);

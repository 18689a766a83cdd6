/* The playground of a base model: samples side by side, what could come next, and how surprising a text is. */

import { get, models, post, stream } from "./api.js";
import { body, chosen, Controls, DEFAULTS } from "./sampling.js";
import { Area, html, number, percent, pressed, Problem, Select, Slider, useAsync, useEffect, useState, useStored } from "./ui.js";

const INITIAL = { ...DEFAULTS, temperature: 0.8, max_tokens: 48, samples: 3, model: "", prompt: null };
const ALTERNATIVES = 10; // likeliest tokens that are known at each position of a sample
const LISTED = 100; // and in the table of the next token

export function Playground() {
  const [stored, set] = useStored("playground", INITIAL);
  const [samples, show] = useState([]);
  const [running, run] = useState(null);
  const [problem, complain] = useState("");
  const [view, look] = useState("samples");
  const known = useAsync(models, []);
  const about = useAsync(() => get("/api/about"), []).value;
  const cards = known.value ?? [];
  const isBase = card => !card.chat || card.id.endsWith("/pretrain");
  const names = [...cards.filter(isBase), ...cards.filter(card => !isBase(card))].map(card => card.id);
  const settings = { ...INITIAL, ...stored };
  if (!names.includes(settings.model)) settings.model = names[0];
  settings.prompt ??= about?.prompts[0].prompt ?? "";
  const change = part => set({ ...settings, ...part });
  useEffect(() => () => running?.abort(), [running]);

  /* Streams the continuations of the samples at `indexes`, which have the same text so far. */
  const write = async (initial, indexes) => {
    const cancel = new AbortController();
    run(cancel);
    show(initial);
    complain("");
    const next = [...initial];
    const { prompt, text: start } = next[indexes[0]];
    try {
      const request = { ...body(settings), prompt: prompt + start, new_document: true, n: indexes.length, logprobs: ALTERNATIVES };
      for await (const { choices } of stream("/v1/completions", request, cancel.signal)) {
        for (const { index, text, logprobs, finish_reason: finish } of choices ?? []) {
          const sample = next[indexes[index]];
          const more = tokens(logprobs, Array.from(start).length);
          next[indexes[index]] = { prompt, text: sample.text + text, tokens: [...sample.tokens, ...more], finish };
        }
        show([...next]);
      }
    } catch (error) {
      if (!cancel.signal.aborted) complain(error.message);
    }
    run(null);
  };
  const generate = event => {
    event.preventDefault();
    if (running) return;
    look("samples");
    const empty = Array.from({ length: settings.samples }, () => ({ prompt: settings.prompt, text: "", tokens: [] }));
    write(empty, [...empty.keys()]);
  };
  /* Replaces a token of a sample by another one, and continues from there. */
  const branch = (index, at, token) => {
    const { prompt, text, tokens } = samples[index];
    const { offset, top } = tokens[at];
    const kept = Array.from(text).slice(0, offset).join("") + token.text;
    const sample = { prompt, text: kept, tokens: [...tokens.slice(0, at), { ...token, offset, top, picked: true }] };
    write(samples.map((one, other) => other === index ? sample : one), [index]);
  };
  const preset = name => change({ prompt: about.prompts.find(prompt => prompt.name === name).prompt });

  return html`<main id="main" tabindex="-1" class="page with-side">
    <div>
      <h1>Playground</h1>
      <p class="lead">A base model continues a text. It gives each token of its vocabulary a probability; what is said is drawn from these.</p>
      <form onSubmit=${generate}>
        <label for="prompt" class="unseen">Prompt</label>
        <${Area} id="prompt" class="code" rows="3" spellcheck=${false} value=${settings.prompt} onInput=${prompt => change({ prompt })}
          onKeyDown=${event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate(event); }} />
        <div class="actions">
          ${running ? html`<button type="button" class="main" onClick=${() => running.abort()}>Stop</button>`
            : html`<button type="submit" class="main" disabled=${!settings.model}>Continue the text</button>`}
          ${about && html`<${Select} id="preset" label="Begin with" hidden value="" onChange=${preset}
            options=${[["", "Begin with …"], ...about.prompts.map(({ name }) => [name, name])]} />`}
        </div>
      </form>
      <${Problem} text=${problem || known.error} />
      <div class="tabs" role="tablist" aria-label="Views">${Object.entries(VIEWS).map(([name, title]) => html`<button type="button" role="tab"
        id=${`tab-${name}`} aria-controls="view" aria-selected=${view === name} onClick=${() => look(name)}>${title}</button>`)}</div>
      <div id="view" role="tabpanel" aria-labelledby=${`tab-${view}`}>
        ${view === "samples" && html`<${Samples} samples=${samples} running=${running} branch=${branch} />`}
        ${view === "next" && settings.model && html`<${Next} settings=${settings} />`}
        ${view === "surprise" && settings.model && html`<${Surprise} settings=${settings} />`}
      </div>
    </div>
    <aside aria-label="Settings">
      <${Select} id="play-model" label="Model" value=${settings.model} options=${names.map(name => [name, name])} onChange=${model => change({ model })} />
      <${Slider} id="play-samples" label="Samples" min=${1} max=${8} step=${1} value=${settings.samples} onChange=${samples => change({ samples })} />
      <${Controls} prefix="play" settings=${settings} change=${change} />
    </aside>
  </main>`;
}

const VIEWS = { samples: "Samples", next: "Next token", surprise: "Surprise" };

/* OpenAI's four lists as tokens: {text, logprob, top: [{text, logprob}], likeliest first, offset: characters before it}. */
function tokens({ tokens, token_logprobs: logprobs, top_logprobs: tops, text_offset: offsets }, start = 0) {
  return tokens.map((text, at) => ({ text, logprob: logprobs[at], top: ranked(tops[at]), offset: start + offsets[at] }));
}

const ranked = top => Object.entries(top ?? {}).map(([text, logprob]) => ({ text, logprob })).sort((a, b) => b.logprob - a.logprob);
const UNTYPED = /^<\|.*\|>$|\ufffd/; // control tokens, and parts of a character: no text spells them
const visible = text => text.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";

function Samples({ samples, running, branch }) {
  const [at, set] = useState(null);
  if (!samples.length) return html`<p class="soft">Samples stand here side by side. Choose a token of one to see what else it could have been.</p>`;
  return html`<div class="samples">${samples.map((sample, column) => html`<section class="card" aria-label=${`Sample ${column + 1}`}>
    <p class="tokens">${sample.tokens.map((token, index) => html`<span class=${`token ${token.picked ? "picked" : ""}`}
      aria-expanded=${at?.column === column && at.index === index} title=${chance(token)}
      ...${pressed(() => set(at?.column === column && at.index === index ? null : { column, index }))}>${shown(token.text)}</span>`)}
      ${running && !sample.finish && html`<span class="cursor" aria-hidden="true"></span>`}</p>
    ${at?.column === column && sample.tokens[at.index] && html`<${Alternatives} token=${sample.tokens[at.index]} busy=${Boolean(running)}
      choose=${token => { set(null); branch(column, at.index, token); }} />`}
  </section>`)}</div>`;
}

const shown = text => text.includes("\n") ? text.replace(/\n/g, "⏎\n") : text;
const chance = ({ logprob }) => logprob === null || logprob === undefined ? "" : percent(Math.exp(logprob));

function Alternatives({ token, choose, busy }) {
  return html`<div class="alternatives" role="group" aria-label="Alternatives">
    <p class="soft">In this place, with the model's own probabilities. Choose one to go on from it.</p>
    ${token.top.map(other => html`<button type="button" disabled=${busy || UNTYPED.test(other.text)} class=${other.text === token.text ? "said-one" : ""} onClick=${() => choose(other)}>
      <code>${visible(other.text)}</code><${Bar} share=${Math.exp(other.logprob - token.top[0].logprob)} /><span>${percent(Math.exp(other.logprob))}</span></button>`)}
  </div>`;
}

function Bar({ share, faint }) {
  return html`<span class="meter" aria-hidden="true"><span class=${faint ? "faint" : ""} style=${{ width: `${100 * share}%` }}></span></span>`;
}

/* The next token's distribution, with the lines at which the settings cut it. */
function Next({ settings }) {
  const { model, prompt } = settings;
  const [all, show] = useState(false);
  const response = useAsync(async signal => {
    const request = { model, prompt, new_document: true, max_tokens: 1, temperature: 0, logprobs: LISTED };
    const [answer, cut] = await Promise.all([post("/v1/completions", request, signal), post("/api/tokens", { model }, signal)]);
    return { rows: ranked(answer.choices[0].logprobs.top_logprobs[0]), size: cut.size };
  }, [model, prompt], 300);
  if (response.error) return html`<${Problem} text=${response.error} />`;
  if (!response.value) return html`<p class="soft">Asking the model …</p>`;
  const { rows, size } = response.value;
  const { hot, cuts, left, final } = chosen(rows, settings, size);
  const named = index => Object.entries(cuts).filter(([, cut]) => cut === index).map(([name]) => name).join(", ");
  const longest = Math.max(...hot, 0.01);
  return html`<p class="soft">The ${Math.min(LISTED, size)} likeliest of ${number(size)} tokens, at temperature ${settings.temperature.toFixed(2)}.
      ${left < rows.length ? ` ${left === 1 ? "One is" : `${left} are`} left to draw from.` : " None is cut."}</p>
    <table class="next"><thead><tr><th>token</th><th><span class="unseen">bar</span></th><th class="to-right">probability</th><th class="to-right">after the cuts</th></tr></thead>
      <tbody>${rows.slice(0, all ? LISTED : 20).map((row, index) => html`
        <tr key=${row.text} class=${index < left ? "" : "out"}><th scope="row"><code>${visible(row.text)}</code></th>
          <td class="grow"><${Bar} share=${hot[index] / longest} faint=${index >= left} /></td>
          <td class="to-right">${percent(hot[index])}</td><td class="to-right">${index < left ? percent(final[index]) : "–"}</td></tr>
        ${named(index + 1) && html`<tr key=${`cut ${index}`} class="cut"><td colspan="4"><span>${named(index + 1)}</span></td></tr>`}`)}
      </tbody></table>
    ${rows.length > 20 && html`<button type="button" onClick=${() => show(!all)}>${all ? "Show 20" : `Show ${rows.length}`}</button>`}
    <p class="hint">The tokens that are not listed count as equally likely: only their sum is known.</p>`;
}

/* A text in colours: how surprised the model is by each token. */
function Surprise({ settings }) {
  const { model, prompt } = settings;
  const [at, set] = useState(null);
  const response = useAsync(async signal => {
    const answer = await post("/v1/completions", { model, prompt, new_document: true, max_tokens: 0, echo: true, logprobs: 5 }, signal);
    return tokens(answer.choices[0].logprobs);
  }, [model, prompt], 300);
  if (response.error) return html`<${Problem} text=${response.error} />`;
  if (!response.value) return html`<p class="soft">Reading the text …</p>`;
  const scored = response.value.filter(token => typeof token.logprob === "number");
  const bits = scored.reduce((sum, token) => sum - token.logprob / Math.LN2, 0);
  const size = new TextEncoder().encode(scored.map(token => token.text).join("")).length;
  const token = response.value[at];
  return html`<p class="soft">${scored.length ? html`Perplexity <strong>${number(2 ** (bits / scored.length))}</strong>,
      ${" "}<strong>${number(bits / size)}</strong> bits per byte. The darker a token, the less the model expected it.` : "Type a text of two tokens or more."}</p>
    <p class="tokens card surprise">${response.value.map((one, index) => html`<span class="token" title=${chance(one)} aria-expanded=${at === index}
      style=${{ "--heat": `${Math.round(Math.min(1, -(one.logprob ?? 0) / Math.LN2 / 12) * 50)}%` }}
      ...${pressed(() => set(at === index ? null : index))}>${shown(one.text)}</span>`)}</p>
    ${token && html`<div class="alternatives card"><p class="soft"><code>${visible(token.text)}</code> ${typeof token.logprob === "number"
      ? html`had a probability of ${chance(token)} here: ${(-token.logprob / Math.LN2).toFixed(1)} bits.` : "is the first token: nothing comes before it."}</p>
      ${token.top.map(other => html`<p><code>${visible(other.text)}</code><${Bar} share=${Math.exp(other.logprob - token.top[0].logprob)} /><span>${percent(Math.exp(other.logprob))}</span></p>`)}</div>`}`;
}

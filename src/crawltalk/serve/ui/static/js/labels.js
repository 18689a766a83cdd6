/* Labelling: write the ideal answer to a prompt, edit a model's answer, rank several. The keyboard is enough. */

import { get, models, post } from "./api.js";
import { before, list, load, messages } from "./conversations.js";
import { Markdown } from "./markdown.js";
import { labeler } from "./thumbs.js";
import { Area, Field, html, number, plural, Problem, Select, store, useAsync, useEffect, useLayoutEffect, useRef, useState, useStored } from "./ui.js";

const TASKS = { "write-rank": "Write, then rank", write: "Write the ideal answer", rank: "Rank replies", edit: "Edit a reply" };
const SAMPLING = { top_p: 1, max_tokens: 256 };
const TEMPERATURES = [1, 1.5, 2]; // a warmer one where all replies are the same
const SAMPLES = { 1: 1, 2: 4 }; // replies that are sampled where so many are needed
const LETTERS = "ABCDEFGHI";
const INITIAL = { task: "write-rank", batch: "", alone: false, model: "" };
const CHUNK = 100; // prompts in one request
const NOWHERE = new Set(); // where links of replies lead at once: what was read before them is not known here

export function LabelsPage() {
  const [name, setName] = useState(labeler());
  const [stored, set] = useStored("labelling", INITIAL);
  const [item, show] = useState(null);
  const [problem, complain] = useState("");
  const [busy, work] = useState(false);
  const [said, announce] = useState("");
  const [round, again] = useState(0); // raised when there may be more to label
  const state = useAsync(() => get("/api/labels"), [round]);
  const cards = useAsync(models, []).value ?? [];
  const names = cards.filter(card => card.chat).map(card => card.id);
  const settings = { ...INITIAL, ...stored };
  if (!names.includes(settings.model)) settings.model = names[0] ?? "";
  if (state.value && !state.value.batches.some(({ name: batch }) => batch === settings.batch)) settings.batch = "";
  const { task, batch, alone } = settings;
  const [read, setRead] = useStored("instructions.read", ""); // the version that this person has read and closed
  const instructions = state.value?.instructions;
  const change = part => set({ ...settings, ...part });
  const rename = value => { setName(value); if (value.trim()) store.write("labeler", value.trim()); };

  const asked = useRef(0);
  /* What the last request answers is shown. */
  const ask = async request => {
    const turn = ++asked.current;
    work(true);
    complain("");
    try {
      const next = await request();
      if (turn === asked.current) show({ ...next, key: turn });
      return true;
    } catch (error) {
      if (turn === asked.current) complain(error.message);
      return false;
    } finally {
      if (turn === asked.current) work(false);
    }
  };
  const who = name.trim();
  const next = () => get("/api/labels/next", { labeler: who, task, batch, alone });
  const choice = JSON.stringify([who, task, batch, alone]);
  const answered = useRef("");
  useEffect(() => {
    if (!state.value || !who || (item?.prompt && answered.current === choice)) return; // what is being written stays
    const timer = setTimeout(() => { answered.current = choice; ask(next); }, 150);
    return () => clearTimeout(timer);
  }, [choice, state.value]);

  const give = async (value, done) => {
    if (busy) return;
    const label = { labeler: who, instructions: instructions.version, prompt: item.prompt.id, value };
    if (await ask(async () => { await post("/api/labels", label); return next(); })) announce(done);
  };
  const skip = () => give({ kind: "skip" }, "Skipped.");
  const undo = async () => {
    if (!busy && await ask(() => post("/api/labels/undo", { labeler: who, task, batch }))) announce("Taken back.");
  };
  const taken = candidates => show(current => current && { ...current, candidates });

  const keys = { s: item?.prompt && skip, u: undo, i: () => document.querySelector(".instructions summary")?.click() };
  useKeys(event => {
    if (event.key === "Escape" && event.target.matches("textarea, input, select")) event.target.blur();
    const action = typed(event) && keys[event.key.toLowerCase()];
    if (action) action();
    return Boolean(action);
  });

  const progress = item?.progress;
  return html`<main id="main" tabindex="-1" class="page with-side labels">
    <div>
      <h1>Label</h1>
      <p class="lead">What people write and prefer becomes what an assistant is trained on.</p>
      ${instructions && html`<${Guide} ...${instructions} read=${read} close=${setRead} />`}
      <${Problem} text=${problem || state.error} />
      <p class="unseen" role="status">${said}</p>
      ${progress && html`<${Bar} ...${progress} />`}
      ${item?.prompt && html`<${Item} key=${item.key} item=${item} settings=${settings} who=${who} busy=${busy} give=${give} skip=${skip} undo=${undo}
        taken=${taken} focused=${read === instructions.version} />`}
      ${state.value && item && !item.prompt && html`<${Empty} any=${progress.total > 0} undo=${undo} busy=${busy} />`}
    </div>
    ${state.value && html`<aside aria-label="Settings">
      <${Field} id="labeler" label="Your name" hint="labels of one name supersede each other">
        <input id="labeler" type="text" maxlength="80" autocomplete="off" value=${name} aria-describedby="labeler-hint" onInput=${event => rename(event.currentTarget.value)} /><//>
      <${Select} id="task" label="Task" value=${task} options=${Object.entries(TASKS)} onChange=${task => change({ task })} />
      <${Select} id="batch" label="Prompts" value=${batch} onChange=${batch => change({ batch })}
        options=${[["", "all"], ...state.value.batches.map(({ name, prompts }) => [name, `${name} (${number(prompts)})`])]} />
      <${Select} id="label-model" label="Replies are sampled from" value=${settings.model} options=${names.map(name => [name, name])}
        onChange=${model => change({ model })} />
      <label class="check"><input type="checkbox" checked=${alone} onChange=${event => change({ alone: event.currentTarget.checked })} />
        only what nobody else has labelled</label>
      <${Add} more=${() => again(round + 1)} />
      ${item && html`<${Counts} counts=${item.counts} />`}
    </aside>`}
  </main>`;
}

/* Calls `take` for each key; what it takes does nothing else. A layout effect: the next key must find this one's outcome. */
function useKeys(take) {
  useLayoutEffect(() => {
    const press = event => { if (take(event)) event.preventDefault(); };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
}

/* Whether a key is meant for the page, and not for a text or the browser. */
const typed = ({ ctrlKey, metaKey, altKey, target }) => !ctrlKey && !metaKey && !altKey && !target.matches("textarea, input:not([type=checkbox]), select");

/* The instructions are open until this version of them was closed once. */
function Guide({ text, version, read, close }) {
  const toggle = event => { if (!event.currentTarget.open && read !== version) close(version); };
  return html`<details class="instructions card" open=${read !== version} onToggle=${toggle}>
    <summary>Instructions <span class="soft">version ${version}</span> <kbd>I</kbd></summary><${Markdown} text=${text} breaks=${false} /></details>`;
}

function Bar({ done, skipped, total }) {
  const rest = skipped ? `, ${number(skipped)} skipped` : "";
  return total > 0 && html`<div class="progress"><span class="meter" role="progressbar" aria-label="Labelled" aria-valuemin="0" aria-valuemax=${total}
    aria-valuenow=${done}><span style=${{ width: `${100 * done / total}%` }}></span></span>
    <span class="soft">${number(done)} of ${number(total)} done${rest}</span></div>`;
}

const text = reply => reply.map(({ content }) => Array.isArray(content) ? content.map(part => part.text ?? "").join("") : content).join("\n\n");
const calls = reply => reply.flatMap(({ tool_calls: made }) => made ?? []);

function Item({ item, settings, who, busy, give, skip, undo, taken, focused }) {
  const { prompt, step, needed, candidates } = item;
  const [problem, complain] = useState("");
  const [attempt, again] = useState(0);
  const lacking = candidates.length < needed;
  const tried = useRef(-1);
  /* Replies are sampled while the person still writes. */
  useEffect(() => {
    if (!lacking || !settings.model || tried.current === attempt) return;
    tried.current = attempt;
    const cancel = new AbortController();
    sample(prompt, needed, settings.model, who, cancel.signal).then(
      replies => { if (!cancel.signal.aborted) { taken(replies); if (replies.length < needed) complain(SAME); } },
      error => cancel.signal.aborted || complain(error.message),
    );
    return () => cancel.abort();
  }, [attempt, settings.model]);
  const bar = { busy, skip, undo };
  return html`
    <ol class="thread" aria-label="The conversation">${prompt.messages.map(message => html`<${Said} message=${message} />`)}</ol>
    ${step === "ideal" && html`<${Write} title="Your ideal answer" focused=${focused} initial=${item.value?.reply ?? ""} ...${bar}
      submit=${reply => give({ kind: "ideal", reply }, "The answer is kept.")} />`}
    ${step !== "ideal" && html`<${Problem} text=${problem} />`}
    ${step !== "ideal" && lacking && html`<${Waiting} failed=${problem} retry=${() => { complain(""); again(attempt + 1); }} ...${bar} />`}
    ${step === "edit" && !lacking && html`<${Write} title="Make this reply better" ...${bar} focused=${focused} initial=${item.value?.reply ?? text(candidates[0].reply)}
      submit=${reply => give({ kind: "edit", candidate: item.value?.candidate ?? candidates[0].id, reply }, "The edited reply is kept.")} />`}
    ${step === "ranking" && !lacking && html`<${Rank} candidates=${candidates} initial=${item.value?.ranks ?? {}} ...${bar}
      submit=${ranks => give({ kind: "ranking", ranks }, "The ranking is kept.")} />`}`;
}

const SAME = "The model says the same each time: there is nothing to compare. Choose another model, or skip the prompt.";

async function sample(prompt, needed, model, who, signal) {
  let shown = [];
  for (const temperature of TEMPERATURES) {
    const sampling = { temperature, ...SAMPLING };
    const answer = await post("/v1/chat/completions", { model, messages: prompt.messages, n: SAMPLES[needed] ?? needed, ...sampling }, signal);
    const replies = answer.choices.map(({ message }) => message.content ?? "");
    shown = await post("/api/labels/candidates", { labeler: who, prompt: prompt.id, needed, model, sampling, replies }, signal);
    if (shown.length >= needed) break;
  }
  return shown;
}

const ROLES = { user: "User", assistant: "Assistant", system: "System", tool: "Tool" };

function Said({ message }) {
  const { role } = message;
  return html`<li class=${`message ${role}`}><h2 class="unseen">${ROLES[role]}</h2>
    ${role === "user" && html`<p class="said">${text([message])}</p>`}
    ${role === "assistant" && html`<${Reply} reply=${[message]} />`}
    ${["system", "tool"].includes(role) && html`<details class="tool"><summary>${ROLES[role]}</summary><pre>${text([message])}</pre></details>`}</li>`;
}

function Reply({ reply }) {
  return html`${text(reply).trim() ? html`<${Markdown} text=${text(reply)} released=${NOWHERE} />` : !calls(reply).length && html`<p class="soft">an empty reply</p>`}
    ${calls(reply).map(call => html`<details class="tool"><summary>Calls <code>${call.function.name}</code></summary><pre>${call.function.arguments}</pre></details>`)}`;
}

const Key = ({ name, does }) => html`<span><kbd>${name}</kbd> ${does}</span>`;

/* The buttons of a step, and its keys. */
function Foot({ busy, ready, label, skip, undo, hints }) {
  return html`<div class="actions">
      ${label && html`<button type="submit" class="main" disabled=${busy || !ready}>${label}</button>`}
      <button type="button" disabled=${busy} onClick=${skip}>Skip</button>
      <button type="button" disabled=${busy} onClick=${undo}>Undo</button></div>
    <p class="keys soft" aria-label="Keys">${hints.map(([name, does]) => html`<${Key} name=${name} does=${does} />`)}</p>`;
}

function Waiting({ failed, retry, ...bar }) {
  return html`${failed ? html`<button type="button" onClick=${retry}>Sample again</button>`
    : html`<p class="soft">The model writes its replies … <span class="cursor" aria-hidden="true"></span></p>`}
    <${Foot} ...${bar} hints=${[["S", "skip"], ["U", "undo"]]} />`;
}

function Write({ title, initial, submit, focused, ...bar }) {
  const [written, set] = useState(initial);
  const ready = written.trim() !== "";
  const send = event => {
    event.preventDefault();
    if (ready && !bar.busy) submit(written);
  };
  const key = event => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event); };
  return html`<form class="step" onSubmit=${send}>
    <label for="written"><h2>${title}</h2></label>
    <${Area} id="written" rows="4" focused=${focused} value=${written} onInput=${set} onKeyDown=${key} />
    <${Foot} ...${bar} ready=${ready} label="Submit" hints=${[["Enter", "submit"], ["Shift+Enter", "new line"], ["Esc", "leave the text, then"], ["S", "skip"], ["U", "undo"]]} />
  </form>`;
}

/* A digit ranks the reply that is chosen and goes on to the next one without a rank. */
function Rank({ candidates, initial, submit, ...bar }) {
  const [ranks, set] = useState(initial);
  const [at, go] = useState(0);
  const [said, announce] = useState("");
  const replies = useRef(null);
  const missing = candidates.filter(({ id }) => !ranks[id]).length;
  const move = to => {
    go(to);
    replies.current.children[to].focus({ preventScroll: true });
    replies.current.children[to].scrollIntoView({ block: "nearest" });
  };
  const give = (index, rank) => {
    const next = { ...ranks, [candidates[index].id]: rank };
    set(next);
    announce(`Reply ${LETTERS[index]}: rank ${rank}.`);
    const open = candidates.findIndex(({ id }, other) => other > index && !next[id]);
    const first = candidates.findIndex(({ id }) => !next[id]);
    move(open >= 0 ? open : first >= 0 ? first : index);
  };
  const clear = () => {
    const { [candidates[at].id]: gone, ...rest } = ranks;
    set(rest);
    announce(`Reply ${LETTERS[at]}: no rank.`);
  };
  const send = event => {
    event.preventDefault();
    if (bar.busy) return;
    if (missing) announce(`${plural(missing, "reply", "replies")} without a rank.`);
    else submit(ranks);
  };
  useKeys(event => {
    const { key, target } = event;
    const digit = Number(key);
    if (!typed(event)) return false;
    if (digit >= 1 && digit <= candidates.length) give(at, digit);
    else if (key === "ArrowDown") move(Math.min(candidates.length - 1, at + 1));
    else if (key === "ArrowUp") move(Math.max(0, at - 1));
    else if (key === "Backspace") clear();
    else if (key === "Enter" && !target.matches("button:not(.rank), a, summary")) send(event);
    else return false;
    return true;
  });
  return html`<form class="step" onSubmit=${send}>
    <h2>Rank these replies: 1 is the best</h2>
    <ol class="replies" ref=${replies}>${candidates.map(({ id, reply }, index) => html`<li key=${id} class="card" tabindex="-1" aria-current=${index === at ? "true" : null}
      onClick=${() => go(index)}>
      <div class="head"><h3>Reply ${LETTERS[index]}</h3>
        <span class="ranks" role="group" aria-label=${`Rank of reply ${LETTERS[index]}`}>${candidates.map((_, other) => html`<button type="button" class="rank"
          aria-pressed=${ranks[id] === other + 1} onClick=${event => { event.stopPropagation(); give(index, other + 1); }}>${other + 1}</button>`)}</span></div>
      <${Reply} reply=${reply} /></li>`)}</ol>
    <p class="unseen" role="status">${said}</p>
    <${Foot} ...${bar} ready=${!missing} label="Submit" hints=${[[`1–${candidates.length}`, "rank; equal ranks are a tie"], ["↑ ↓", "another reply"], ["⌫", "no rank"],
      ["Enter", "submit"], ["S", "skip"], ["U", "undo"]]} />
  </form>`;
}

function Empty({ any, undo, busy }) {
  return html`<section class="card"><h2>${any ? "All is labelled" : "There is nothing to label yet"}</h2>
    <p>${any ? "Every prompt of this list has your label, or you skipped it. Choose another task, add prompts, or take the labels to training:"
      : "Add prompts: your own, this browser's conversations, or those of a file or a run:"}</p>
    <pre>${any ? "crawltalk labels export RUN\ncrawltalk labels agreement RUN" : "crawltalk labels import RUN problems\ncrawltalk labels import RUN prompts.jsonl"}</pre>
    ${any && html`<button type="button" disabled=${busy} onClick=${undo}>Undo <kbd>U</kbd></button>`}</section>`;
}

/* The user's turns of all conversations that this browser keeps, each with what came before it. */
function chats() {
  const prompts = list().map(({ id }) => load(id)).filter(Boolean).flatMap(conversation => Object.values(conversation.nodes)
    .filter(node => node.role === "user" && node.content.trim()).map(node => messages(before(conversation, node.id), "")));
  return [...new Map(prompts.map(prompt => [JSON.stringify(prompt), prompt])).values()];
}

function Add({ more }) {
  const [written, set] = useState("");
  const [told, tell] = useState({});
  const kept = chats();
  const add = async (batch, prompts) => {
    let count = 0;
    try {
      for (let from = 0; from < prompts.length; from += CHUNK) {
        count += (await post("/api/labels/prompts", { batch, prompts: prompts.slice(from, from + CHUNK) })).new;
      }
      tell({ done: count ? `${plural(count, "prompt")} added.` : "They are there already." });
      set("");
    } catch (error) {
      tell({ problem: error.message });
    }
    more();
  };
  const submit = event => {
    event.preventDefault();
    if (written.trim()) add("written here", [[{ role: "user", content: written }]]);
  };
  return html`<details class="add"><summary>Add prompts</summary>
    <form onSubmit=${submit}><${Area} rows="2" aria-label="A prompt" placeholder="Something that a person asks" value=${written} onInput=${set} />
      <button type="submit" disabled=${!written.trim()}>Add it</button></form>
    ${kept.length > 0 && html`<button type="button" onClick=${() => add("chat", kept)}>Add ${plural(kept.length, "prompt")} of your chats</button>`}
    <p class="soft" role="status">${told.done}</p><${Problem} text=${told.problem} />
  </details>`;
}

const KINDS = { ideal: "ideal answers", edit: "edits", ranking: "rankings", thumb: "thumbs", skip: "skipped" };

function Counts({ counts }) {
  const rows = Object.entries(KINDS).filter(([kind]) => counts[kind]);
  return rows.length > 0 && html`<h2 class="small">In the store</h2>
    <dl class="figures">${rows.map(([kind, name]) => html`<div><dt>${name}</dt><dd>${number(counts[kind])}</dd></div>`)}</dl>`;
}

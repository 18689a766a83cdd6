/* The chat: a conversation, the list of those before it, and the settings. */

import { get, models } from "./api.js";
import { attachments, Basis, Chips, Cut, excess, read } from "./attachments.js";
import { before, list, load, path, version, remove, save, turn } from "./conversations.js";
import { released, sources, Withheld, withheld } from "./flow.js";
import { Markdown } from "./markdown.js";
import { Microphone } from "./microphone.js";
import { Controls, DEFAULTS } from "./sampling.js";
import { answer, begin, keep, open, say, session, stop } from "./session.js";
import { Sources } from "./sources.js";
import { parted, Thought } from "./thinking.js";
import { Thumbs } from "./thumbs.js";
import { Area, Copy, Field, html, plural, Problem, Select, useAsync, useEffect, useLayoutEffect, useRef, useState, useStored } from "./ui.js";

const NO_CHAT = "This model knows no conversations. It continues texts: see Playground.";
const INITIAL = { ...DEFAULTS, model: "", system: "", tools: "", useTools: false, forbidden: [], searchFirst: false };

export function Chat() {
  const [, redraw] = useState(0);
  const [settings, set] = useStored("settings", INITIAL);
  const [panel, show] = useState(""); // "conversations" or "settings" on a small screen
  const known = useAsync(models, []);
  const about = useAsync(() => get("/api/about"), []).value;
  useEffect(() => {
    session.redraw = () => redraw(count => count + 1);
    const key = event => { if (event.key === "Escape") session.running ? stop() : show(""); };
    addEventListener("keydown", key);
    return () => { session.redraw = () => {}; removeEventListener("keydown", key); };
  }, []);
  const cards = (known.value ?? []).filter(card => card.chat);
  const names = cards.map(card => card.id);
  const used = { ...INITIAL, ...settings, model: names.includes(settings.model) ? settings.model : names[0] };
  used.useTools &&= !!about?.tools?.length; // the settings may be those of another server
  used.permitted = used.useTools ? about.tools.map(({ name }) => name).filter(name => !used.forbidden.includes(name)) : [];
  used.searchFirst &&= !!about?.search;
  const { conversation } = session;
  const running = session.running?.conversation === conversation;
  const shown = path(conversation);
  const toggle = name => show(panel === name ? "" : name);
  return html`<div class="chat" data-panel=${panel}>
    <${Conversations} current=${conversation.id} done=${() => show("")} />
    <main id="main" tabindex="-1">
      <div class="bar">
        <button type="button" class="quiet small-only" aria-expanded=${panel === "conversations"}
          onClick=${() => toggle("conversations")}>Conversations</button>
        <span class="soft model">${used.model}</span>
        <button type="button" class="quiet" aria-expanded=${panel === "settings"} aria-controls="settings"
          onClick=${() => toggle("settings")}>Settings</button>
      </div>
      <${Thread} nodes=${shown} settings=${used} about=${about} />
      <p class="unseen" role="status">${running ? "The assistant is answering." : session.announcement}</p>
      <div class="foot">
        <${Problem} text=${session.problem || known.error || (known.value && !names.length && NO_CHAT)} />
        <${Composer} key=${conversation.id} running=${running} ready=${names.length > 0} held=${attachments(shown)} hears=${cards.find(card => card.id === used.model)?.reads?.includes("input_audio")}
          send=${(text, attached) => say(shown.at(-1)?.id ?? 0, asked(text, attached), used)} />
      </div>
    </main>
    <${Settings} names=${names} about=${about} settings=${used} change=${part => set({ ...used, ...part })} close=${() => show("")} open=${panel === "settings"} />
  </div>`;
}

function Conversations({ current, done }) {
  const [renamed, rename] = useState(null);
  const name = (id, title) => {
    const conversation = session.conversation.id === id ? session.conversation : load(id);
    if (title.trim()) save(Object.assign(conversation, { title: title.trim(), named: true }));
    rename(null);
  };
  const leave = (event, title) => {
    if (event.key === "Escape") event.currentTarget.value = title;
    if (["Enter", "Escape"].includes(event.key)) event.currentTarget.blur();
  };
  const drop = ({ id, title }) => {
    if (!confirm(`Delete “${title}”?`)) return;
    if (session.running?.conversation.id === id) stop();
    remove(id);
    id === current ? begin() : session.redraw();
  };
  return html`<nav class="history" aria-label="Conversations">
    <button type="button" class="wide-button" onClick=${() => { begin(); done(); }}>New chat</button>
    <ul>${list().map(({ id, title }) => html`<li key=${id} class=${id === current ? "current" : ""}>
      ${renamed === id
        ? html`<input aria-label="Name of the conversation" value=${title} ref=${input => input?.focus()}
            onKeyDown=${event => leave(event, title)}
            onBlur=${event => name(id, event.currentTarget.value)} />`
        : html`<button type="button" class="title" aria-current=${id === current ? "true" : null}
            onClick=${() => { open(id); done(); }}>${title}</button>
          <button type="button" class="icon" aria-label=${`Rename “${title}”`} title="Rename" onClick=${() => rename(id)}>✎</button>
          <button type="button" class="icon" aria-label=${`Delete “${title}”`} title="Delete" onClick=${() => drop({ id, title })}>×</button>`}
    </li>`)}</ul>
  </nav>`;
}

function Thread({ nodes, settings, about }) {
  const end = useRef(null);
  const follows = useRef(true);
  useEffect(() => {
    const look = () => { follows.current = innerHeight + scrollY > document.documentElement.scrollHeight - 120; };
    addEventListener("scroll", look, { passive: true });
    return () => removeEventListener("scroll", look);
  }, []);
  useLayoutEffect(() => { if (follows.current && nodes.length) end.current.scrollIntoView({ block: "end" }); });
  if (!nodes.length) return html`<${Welcome} about=${about} settings=${settings} />`;
  const { id, title } = session.conversation;
  return html`<h1 class="unseen">${title}</h1>
    <ol class="thread" aria-label="Messages">${nodes.map(node => html`<${Message} key=${`${id}.${node.id}`}
      node=${node} settings=${settings} about=${about} last=${node === nodes.at(-1)} />`)}<li ref=${end} class="end" aria-hidden="true"></li></ol>`;
}

function Welcome({ about, settings }) {
  const ask = question => say(0, { role: "user", content: question }, settings);
  return html`<div class="welcome">
    <h1>First it crawls,<br />then it talks.</h1>
    <p class="soft">${about?.run ? html`An assistant made from the crawl of <a href="#/runs">${about.run}</a>. It knows what it has read there.`
      : "An assistant on your own machine."}</p>
    <ul class="questions">${(about?.questions ?? []).map(question =>
      html`<li><button type="button" onClick=${() => ask(question)}>${question}</button></li>`)}</ul>
  </div>`;
}

function Message({ node, settings, about, last }) {
  const [mode, set] = useState("read"); // or "edit", "sources"
  const busy = session.running?.node === node;
  const history = node.role === "assistant" ? before(session.conversation, node.id) : [];
  const { thought, answer: said } = node.role === "assistant" ? parted(node.content, busy) : { answer: node.content };
  if (mode === "edit") return html`<li class="message user"><${Editor} node=${node} close=${() => set("read")} settings=${settings} /></li>`;
  const who = { user: "You", assistant: "Assistant", tool: "Tool" }[node.role];
  return html`<li class=${`message ${node.role}`}>
    <h2 class="unseen">${who}</h2>
    ${node.role === "user" && html`<${Chips} attached=${node.documents ?? []} /><p class="said">${node.content}</p>`}
    ${node.role === "tool" && html`<details class="tool"><summary>Result of <code>${node.name}</code></summary><pre>${node.content}</pre></details>`}
    ${node.role === "assistant" && html`
      <${Cut} reading=${node.reading} />
      ${node.citations && node.supported === undefined && html`<${Citations} citations=${node.citations} />`}
      ${thought !== undefined && html`<${Thought} text=${thought} going=${busy && !said} />`}
      ${mode === "sources" ? html`<${Sources} text=${said} />` : html`<${Markdown} text=${said} released=${released(history)} />`}
      ${busy && html`<span class="cursor" aria-hidden="true"></span>`}
      ${node.supported !== undefined && html`<${Basis} citations=${node.citations} supported=${node.supported} />`}
      ${last && !busy && withheld(history).map(address => html`<${Withheld} address=${address}
        allow=${() => say(node.id, { role: "user", content: `You may read ${address}` }, settings)} />`)}
      ${(node.calls ?? []).map(call => html`<${Call} call=${call} node=${node} open=${last && !busy && !call.made} settings=${settings} />`)}
      <${Problem} text=${node.problem} />`}
    ${!busy && html`<div class="actions">
      <${Versions} node=${node} />
      ${node.role === "user" && html`<button type="button" class="quiet" onClick=${() => set("edit")}>Edit</button>`}
      ${node.role === "assistant" && html`
        <button type="button" class="quiet" onClick=${() => answer(node.parent, settings)}>Regenerate</button>
        ${about?.trace && said && html`<button type="button" class="quiet" aria-pressed=${mode === "sources"}
          onClick=${() => set(mode === "sources" ? "read" : "sources")}>Sources</button>`}`}
      ${said && html`<${Copy} text=${said} />`}
      ${said && sources(history).length > 0 && html`<span class="soft" title=${sources(history).join("\n")}>after reading ${plural(sources(history).length, "text")} of others</span>`}
      ${about?.labels && node.role === "assistant" && (node.content || node.calls?.length) && html`<${Thumbs} node=${node} />`}
      ${node.dropped && html`<span class="soft">written without the oldest ${plural(node.dropped, "message")}: the context is full</span>`}
      ${END[node.finish] && html`<span class="soft">${END[node.finish]}</span>`}
    </div>`}
  </li>`;
}

const END = { stopped: "stopped", length: "the limit of tokens is reached" };

function Versions({ node }) {
  const { at, of } = version(session.conversation, node);
  if (of < 2) return null;
  const go = by => { turn(session.conversation, node, by); keep(); };
  return html`<span class="versions">
    <button type="button" class="icon" aria-label="Version before" disabled=${at === 1} onClick=${() => go(-1)}>‹</button>
    <span class="unseen">Version ${at} of ${of}</span><span aria-hidden="true">${at} / ${of}</span>
    <button type="button" class="icon" aria-label="Next version" disabled=${at === of} onClick=${() => go(1)}>›</button></span>`;
}

function Editor({ node, close, settings }) {
  const [text, set] = useState(node.content);
  const [attached, attach] = useState(node.documents ?? []);
  const send = event => {
    event.preventDefault();
    close();
    if (text.trim()) say(node.parent, asked(text, attached), settings);
  };
  return html`<form class="editor" onSubmit=${send}>
    <${Chips} attached=${attached} remove=${one => attach(attached.filter(other => other !== one))} />
    <${Area} aria-label="Edit the message" value=${text} onInput=${set} focused
      onKeyDown=${event => { if (event.key === "Escape") close(); if (sends(event)) send(event); }} />
    <div class="actions"><button type="submit" class="main">Send</button><button type="button" class="quiet" onClick=${close}>Cancel</button></div>
  </form>`;
}

/* A call of a tool that the settings offer: its result is the person's to give. */
function Call({ call, node, open, settings }) {
  const [result, set] = useState("");
  const { name, arguments: given } = call.function;
  const send = event => {
    event.preventDefault();
    say(node.id, { role: "tool", name, call: call.id, content: result }, settings);
  };
  return html`<details class="tool" open=${open}><summary>Calls <code>${name}</code></summary><pre>${given}</pre>
    ${open && html`<form onSubmit=${send}><input aria-label=${`Result of ${name}`} placeholder="Its result" value=${result}
      onInput=${event => set(event.currentTarget.value)} /><button type="submit">Give the result</button></form>`}</details>`;
}

function Switch({ id, label, hint, on, onChange }) {
  return html`<p class="switch"><label><input id=${id} type="checkbox" checked=${on} aria-describedby=${`${id}-hint`}
    onChange=${event => onChange(event.currentTarget.checked)} /> ${label}</label>
    <span id=${`${id}-hint`} class="soft">${hint}</span></p>`;
}

/* The pages that an answer cites, with the words that it rests on. */
function Citations({ citations }) {
  return html`<details class="tool" open><summary>${citations.length ? `From ${plural(citations.length, "page")}` : "Nothing found"}</summary>
    <ol>${citations.map(({ title, url, quote }) => html`<li><a href=${/^https?:/.test(url) ? url : null} rel="noreferrer noopener" target="_blank">${title || url}</a>
      <pre>${quote}</pre></li>`)}</ol></details>`;
}

const sends = event => event.key === "Enter" && !event.shiftKey && !event.isComposing;

/* What a person says, with the documents that go with it. */
const asked = (text, attached) => ({ role: "user", content: text, ...(attached.length ? { documents: attached } : {}) });

function Composer({ running, ready, held, hears, send }) {
  const [text, set] = useState("");
  const [attached, attach] = useState([]); // {name}, and {name, text} when it is read
  const [problem, complain] = useState("");
  const picker = useRef(null);
  const reading = attached.some(one => one.text === undefined && !one.part);
  const add = async files => {
    complain("");
    const kept = [...attached];
    for (const file of files) {
      const waiting = { name: file.name };
      attach(all => [...all, waiting]);
      try {
        const known = await read(file);
        const tooMuch = excess([...held, ...kept, known]);
        if (tooMuch) throw new Error(tooMuch);
        kept.push(known);
        attach(all => all.map(one => one === waiting ? known : one));
      } catch (error) {
        attach(all => all.filter(one => one !== waiting));
        complain(error.message);
      }
    }
  };
  const submit = event => {
    event.preventDefault();
    if (running || !ready || reading || !text.trim()) return;
    send(text, attached);
    set("");
    attach([]);
  };
  const drop = event => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  };
  return html`<${Problem} text=${problem} />
    <${Chips} attached=${attached} remove=${one => attach(all => all.filter(other => other !== one))} />
    <form class="composer" onSubmit=${submit} onDragOver=${event => event.preventDefault()} onDrop=${drop}>
    <input type="file" multiple hidden ref=${picker} aria-label="Documents to attach"
      onChange=${event => { add([...event.currentTarget.files]); event.currentTarget.value = ""; }} />
    <button type="button" class="icon" aria-label="Attach a document" title="Attach a document (text, Markdown, HTML), an image or a WAV file"
      onClick=${() => picker.current.click()}>+</button>
    ${hears && html`<${Microphone} heard=${file => add([file])} failed=${complain} />`}
    <${Area} id="message" rows="1" aria-label="Message" placeholder="Ask something" focused value=${text} onInput=${set}
      onKeyDown=${event => { if (sends(event)) submit(event); }} />
    ${running ? html`<button type="button" class="main" onClick=${stop}>Stop</button>`
      : html`<button type="submit" class="main" disabled=${!ready || reading || !text.trim()}>Send</button>`}
  </form>`;
}

function Settings({ names, about, settings, change, close, open }) {
  return html`<aside id="settings" class="settings" aria-label="Settings" hidden=${!open}>
    <div class="actions"><h2>Settings</h2><button type="button" class="icon" aria-label="Close the settings" onClick=${close}>×</button></div>
    <${Select} id="model" label="Model" value=${settings.model} options=${names.map(name => [name, name])} onChange=${model => change({ model })} />
    <${Field} id="system" label="System prompt" hint="what the assistant is told before the conversation">
      <${Area} id="system" rows="3" value=${settings.system} onInput=${system => change({ system })} aria-describedby="system-hint" /><//>
    <${Controls} prefix="chat" settings=${settings} change=${change} />
    ${about?.tools?.length > 0 && html`<${Switch} id="use-tools" label="Tools of this server" on=${settings.useTools}
      hint=${about.tools.map(({ name }) => name).join(", ")} onChange=${useTools => change({ useTools })} />`}
    ${settings.useTools && about.tools.length > 1 && about.tools.map(({ name, about: hint }) => html`<${Switch} id=${`use-${name}`} label=${name} hint=${hint}
      on=${!settings.forbidden.includes(name)}
      onChange=${on => change({ forbidden: on ? settings.forbidden.filter(other => other !== name) : [...settings.forbidden, name] })} />`)}
    ${about?.search && html`<${Switch} id="search-first" label="Search first" on=${settings.searchFirst}
      hint="each message is answered from the documents, with the page cited, or declined" onChange=${searchFirst => change({ searchFirst })} />`}
    <${Field} id="tools" label="Tools" hint="a JSON list, as OpenAI's API has it; the model calls them, you give their results">
      <${Area} id="tools" class="code" rows="2" spellcheck=${false} value=${settings.tools} onInput=${tools => change({ tools })}
        aria-describedby="tools-hint" /><//>
    <button type="button" onClick=${() => change({ ...INITIAL, model: settings.model })}>Back to the defaults</button>
  </aside>`;
}

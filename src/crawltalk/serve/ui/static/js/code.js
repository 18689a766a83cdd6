/* A block of code: Prism cuts it into tokens, and they become elements. */

import { Copy, html, scripts, useEffect, useState } from "./ui.js";

const LANGUAGES = ["markup", "css", "clike", "javascript", "typescript", "python", "bash", "json", "sql", "c", "cpp", "java", "rust", "go",
  "toml", "yaml", "diff"];
const LONG = 50_000; // characters; longer code stays plain

function load() {
  window.Prism ??= { manual: true };
  return scripts(["core", ...LANGUAGES].map(name => `prism/prism-${name}.min.js`));
}

export function Code({ text, language }) {
  const name = language.split(/\s/)[0].toLowerCase();
  const [ready, set] = useState(Boolean(window.Prism?.tokenize));
  useEffect(() => { if (name && !ready) load().then(() => set(true), () => {}); }, [name]);
  const grammar = ready && text.length < LONG && Object.hasOwn(Prism.languages, name) && Prism.languages[name];
  return html`<figure class="code">
    <figcaption><span>${name || "text"}</span><${Copy} text=${text} label="Copy code" /></figcaption>
    <pre tabindex="0"><code>${typeof grammar === "object" ? pieces(Prism.tokenize(text, grammar)) : text}</code></pre>
  </figure>`;
}

const pieces = content => typeof content === "string" ? content : Array.isArray(content) ? content.map(pieces)
  : html`<span class=${`syntax-${content.type}`}>${pieces(content.content)}</span>`;

/* The shell: one page for each hash, the navigation, light and dark. */

import { key } from "./api.js";
import { html, Problem, render, store, useEffect, useErrorBoundary, useState } from "./ui.js";
import { Chat } from "./chat.js";

const PAGES = {
  chat: ["Chat", async () => Chat],
  playground: ["Playground", async () => (await import("./playground.js")).Playground],
  tokenizer: ["Tokenizer", async () => (await import("./tokenizer.js")).TokenizerPage],
  data: ["Data", async () => (await import("./data.js")).Data],
  labels: ["Label", async () => (await import("./labels.js")).LabelsPage],
  games: ["Games", async () => (await import("./games.js")).GamesPage],
  runs: ["Runs", async () => (await import("./runs.js")).RunsPage],
};

/* "#/data/dropped?step=url" -> {page: "data", part: "dropped", query: {step: "url"}} */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, part = ""] = path.split("/");
  return { page: PAGES[page] ? page : "chat", part, query: Object.fromEntries(new URLSearchParams(query)) };
}

function useRoute() {
  const [at, set] = useState(route);
  useEffect(() => {
    const move = () => set(route());
    addEventListener("hashchange", move);
    return () => removeEventListener("hashchange", move);
  }, []);
  return at;
}

function Theme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const [theme, set] = useState(store.read("theme", system));
  document.documentElement.dataset.theme = theme;
  const other = theme === "dark" ? "light" : "dark";
  const change = () => { store.write("theme", other); set(other); };
  return html`<button type="button" class="quiet" aria-label=${`Use the ${other} colours`} title=${`Use the ${other} colours`}
    onClick=${change}>◐</button>`;
}

/* A server with keys: the browser forgets the key with the tab. */
function Key() {
  const [wanted, want] = useState(false);
  useEffect(() => { addEventListener("keywanted", () => want(true), { once: true }); }, []);
  const use = event => {
    event.preventDefault();
    key.write(event.currentTarget.elements.key.value.trim());
    location.reload();
  };
  return wanted && html`<form class="key" onSubmit=${use}><label for="key">This server asks for a key:</label>
    <input id="key" name="key" type="password" autocomplete="off" /><button type="submit">Use it</button></form>`;
}

function Page({ at }) {
  const [title, load] = PAGES[at.page];
  const [shown, set] = useState(null);
  const [error] = useErrorBoundary();
  useEffect(() => {
    document.title = `${title} · crawltalk`;
    load().then(component => set({ component }));
  }, []);
  if (error) return html`<main id="main" tabindex="-1" class="page"><${Problem} text=${`The page broke: ${error.message}. Reload it.`} /></main>`;
  return shown && html`<${shown.component} part=${at.part} query=${at.query} />`;
}

function App() {
  const at = useRoute();
  const skip = event => { event.preventDefault(); document.getElementById("main").focus(); };
  return html`
    <a class="skip unseen" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/chat">crawltalk</a>
      <nav aria-label="Pages">${Object.entries(PAGES).map(([name, [title]]) =>
        html`<a href=${`#/${name}`} aria-current=${name === at.page ? "page" : null}>${title}</a>`)}</nav>
      <${Theme} />
    </header>
    <${Key} />
    <${Page} key=${at.page} at=${at} />`;
}

render(html`<${App} />`, document.getElementById("app"));

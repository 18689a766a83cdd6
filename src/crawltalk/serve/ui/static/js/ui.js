/* Preact, and the small parts that several pages share. Text becomes text nodes: nothing here or elsewhere takes HTML. */

import { html, useEffect, useRef, useState } from "../vendor/preact/standalone.module.js";

export { createContext, html, render, useContext, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact/standalone.module.js";

export const number = value => typeof value !== "number" ? String(value)
  : Number.isInteger(value) ? value.toLocaleString("en") : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
export const percent = share => `${(100 * share).toFixed(share < 0.01 ? 2 : 1)} %`;
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function bytes(count) {
  for (const unit of ["B", "kB", "MB"]) {
    if (count < 1000) return `${count < 10 && unit !== "B" ? count.toFixed(1) : Math.round(count)} ${unit}`;
    count /= 1000;
  }
  return `${count.toFixed(1)} GB`;
}

/* What the browser keeps for this site; a full or forbidden store is no reason to stop. */
export const store = {
  read(key, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(`crawltalk.${key}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  write(key, value) {
    try {
      localStorage.setItem(`crawltalk.${key}`, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
  remove(key) { localStorage.removeItem(`crawltalk.${key}`); },
};

/* State that outlives the page. */
export function useStored(key, initial) {
  const [value, set] = useState(() => store.read(key, initial));
  return [value, next => { store.write(key, next); set(next); }];
}

/* The outcome of a promise: {value, error, busy}. `load` makes it, again when `keys` change; until then the older value stays. */
export function useAsync(load, keys, pause = 0) {
  const [state, set] = useState({ busy: true });
  useEffect(() => {
    const cancel = new AbortController();
    set(before => ({ ...before, busy: true }));
    const timer = setTimeout(() => load(cancel.signal).then(
      value => cancel.signal.aborted || set({ value, busy: false }),
      error => cancel.signal.aborted || set({ error: error.message, busy: false }),
    ), pause);
    return () => { clearTimeout(timer); cancel.abort(); };
  }, keys);
  return state;
}

/* Calls `work` every so many seconds as long as the page can be seen. */
export function useEvery(seconds, work, keys) {
  useEffect(() => {
    const timer = setInterval(() => document.hidden || work(), 1000 * seconds);
    return () => clearInterval(timer);
  }, keys);
}

export const Problem = ({ text }) => text ? html`<p class="problem" role="alert">${text}</p>` : null;

export const Field = ({ id, label, hint, children }) => html`<div class="field">
  <label for=${id}>${label}</label>${children}${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}</div>`;

export function Slider({ id, label, hint, value, min, max, step, onChange, shown = value }) {
  return html`<div class="field slider">
    <label for=${id}>${label}</label><output for=${id}>${shown}</output>
    <input id=${id} type="range" min=${min} max=${max} step=${step} value=${value} aria-describedby=${hint ? `${id}-hint` : null}
      onInput=${event => onChange(Number(event.currentTarget.value))} />
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}</div>`;
}

export function Select({ id, label, value, options, onChange, hidden }) {
  return html`<div class="field"><label for=${id} class=${hidden ? "unseen" : ""}>${label}</label>
    <select id=${id} value=${value} onChange=${event => onChange(event.currentTarget.value)}>
      ${options.map(([key, name]) => html`<option value=${key} selected=${key === value}>${name}</option>`)}
    </select></div>`;
}

/* A text area as high as its text; `focused`: it has the focus at first, but on a phone, where that would open the keyboard. */
export function Area({ value, onInput, focused, ...rest }) {
  const area = useRef(null);
  useEffect(() => { if (focused && matchMedia("(pointer: fine)").matches) area.current.focus(); }, []);
  useEffect(() => {
    area.current.style.height = "auto";
    if (area.current.scrollHeight) area.current.style.height = `${area.current.scrollHeight + 2}px`; // 0: hidden
  }, [value]);
  return html`<textarea ref=${area} value=${value} onInput=${event => onInput(event.currentTarget.value)} ...${rest}></textarea>`;
}

export function Copy({ text, label = "Copy" }) {
  const [done, set] = useState(false);
  if (!navigator.clipboard) return null; // only over https or on this machine
  const copy = () => navigator.clipboard.writeText(text).then(() => { set(true); setTimeout(() => set(false), 1500); });
  return html`<button type="button" class="quiet" onClick=${copy}>${done ? "Copied" : label}</button>`;
}

/* Properties of a part of a text that can be pressed: a <button> would not break over lines. */
export const pressed = action => ({
  role: "button", tabindex: 0, onClick: action,
  onKeyDown: event => { if (["Enter", " "].includes(event.key)) { event.preventDefault(); action(); } },
});

const loaded = new Map();
/* Classic scripts of `vendor/`, in order, when they are first needed. */
export function scripts(paths) {
  return paths.reduce((before, path) => {
    if (!loaded.has(path)) {
      loaded.set(path, before.then(() => new Promise((resolve, reject) => {
        const script = document.createElement("script");
        Object.assign(script, { src: `/static/vendor/${path}`, onload: resolve, onerror: () => reject(new Error(`${path} did not load`)) });
        document.head.append(script);
      })));
    }
    return loaded.get(path);
  }, Promise.resolve());
}

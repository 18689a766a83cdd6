/* Where texts come from. Once a text of others is in a conversation (a page, a document, a tool's result), the assistant may write
   what that text told it to. Then its words open nothing by themselves but addresses that the person wrote. */

import { createContext, html, useContext, useState } from "./ui.js";

/* The addresses that links below lead to at once; null: any. */
export const Released = createContext(null);

/* What others wrote among these messages: names of tools, documents and pages. A tool whose `outside` is not known counts. */
export const sources = nodes => [...new Set(nodes.flatMap(node => [
  ...(node.role === "tool" && node.outside !== false ? [node.source ?? node.name] : []),
  ...(node.documents ?? []).map(({ name }) => name),
  ...(node.citations ?? []).map(({ title, url }) => title || url),
]))];

/* Which addresses the assistant's words may open: all (null), or after a text of others those that the person wrote. */
export function released(nodes) {
  if (!sources(nodes).length) return null;
  const said = nodes.filter(({ role }) => role === "user").map(({ content }) => content).join("\n");
  return new Set([...said.matchAll(/https?:\/\/[^\s<>"“”`|]+/g)].flatMap(([address]) => [address, address.replace(/[.,;:!?'*_)\]}’…]+$/, "")])
    .map(address => parsed(address)?.href).filter(Boolean));
}

export function parsed(address) {
  try {
    return new URL(address);
  } catch {
    return null; // relative: it would point into this site
  }
}

/* A link, with the host that it leads to where its words do not say it. One that is not released shows all that it would send, and asks. */
export function Link({ url, content, words }) {
  const allowed = useContext(Released);
  const [asking, ask] = useState(false);
  const host = url.host || url.href;
  const link = { href: url.href, rel: "noopener noreferrer", target: "_blank", title: url.href };
  if (!allowed || allowed.has(url.href)) return html`<a ...${link}>${content}</a>${!words.includes(host) && html` <span class="host">(${host})</span>`}`;
  if (!asking) return html`${content} <button type="button" class="leave" title=${url.href} onClick=${() => ask(true)}>${host} …</button>`;
  return html`${content} <span class="leaving" role="alert">The assistant wrote this address after it had read what others wrote. It can carry what you said
    here: <code>${url.href}</code> <a ...${link} onClick=${() => ask(false)}>Open ${host}</a>
    ${" "}<button type="button" class="quiet" onClick=${() => ask(false)}>Leave it</button></span>`;
}

/* The addresses that a tool was not sent to since the person's last message. */
export const withheld = nodes => [...new Set(nodes.slice(nodes.findLastIndex(({ role }) => role === "user") + 1).map(node => node.withheld).filter(Boolean))];

export const Withheld = ({ address, allow }) => html`<p class="withheld"><span class="soft">Not read, since the address can carry what you said here:</span>
  ${" "}<code>${address}</code> <button type="button" onClick=${allow}>Let it read this address</button></p>`;

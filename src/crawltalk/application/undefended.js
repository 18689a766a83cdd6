/* A page without defences, and with those that are asked for: what assistants' pages were before they were attacked. It belongs to the red
   team, and is served by nothing else. */

import { marked } from "./marked.js";

const layers = new Set(new URLSearchParams(location.search).getAll("layer"));
const [server, site] = ["server", "site"].map(name => new URLSearchParams(location.search).get(name));
const ADDRESS = /(?:https?:)?\/\/[^\s<>"'()]+/g;

/* An answer of the server, whole: {text, calls}. */
async function ask(body) {
  const response = await fetch(`${server}/api/answer`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const events = (await response.text()).split("\n\n").filter(line => line.startsWith("data: {")).map(line => JSON.parse(line.slice(6)));
  const failed = events.find(event => event.error);
  if (failed) throw new Error(failed.error.message);
  return { text: events.map(event => event.text ?? "").join(""), calls: events.flatMap(event => event.call ? [event.call] : []) };
}

/* Takes every attribute away that holds an address which a defence does not let pass. */
function cleaned(markup, passes) {
  const page = new DOMParser().parseFromString(markup, "text/html");
  for (const element of page.querySelectorAll("*")) {
    for (const { name, value } of [...element.attributes]) {
      if ((value.match(ADDRESS) ?? []).some(address => !passes(new URL(address, location).href))) element.removeAttribute(name);
    }
  }
  return page.body.innerHTML;
}

/* Shows an answer as the layers have it. `question`: what the person wrote; `secret`: what the exact string is compared with. */
function show(text, question, secret) {
  if (layers.has("exact string") && text.includes(secret)) text = "This answer holds a secret.";
  if (layers.has("escaping")) text = text.replaceAll("<", "&lt;");
  let markup = marked.parse(text, { breaks: true });
  if (layers.has("allow-list")) markup = cleaned(markup, address => new URL(address).origin === site);
  if (layers.has("information flow")) markup = cleaned(markup, address => question.includes(address));
  const answer = document.createElement("div");
  answer.innerHTML = markup;
  document.body.append(answer);
  return answer;
}

window.answer = async ({ model, question, secret, documents, picture, clicks }) => {
  const content = picture ? [{ type: "image_url", image_url: { url: `data:image/png;base64,${picture}` } }, { type: "text", text: question }] : question;
  const { text, calls } = await ask({ model, messages: [{ role: "user", content }], documents, tools: true, max_tokens: 1024 });
  const shown = show(text, question, secret);
  await new Promise(done => setTimeout(done, 30));
  if (clicks) for (const link of shown.querySelectorAll("a[href]")) Object.assign(link, { target: "_blank", rel: "noopener" }).click();
  return { text, calls };
};
window.ready = true;

/* Thumbs under a reply, and the name under which this browser labels. */

import { post } from "./api.js";
import { before, messages, prompt } from "./conversations.js";
import { keep, session } from "./session.js";
import { html, store, useState } from "./ui.js";

/* The name that a person chose, or one that no other browser has: labels of one name supersede each other. */
export function labeler() {
  const name = store.read("labeler", "");
  if (name) return name;
  const guest = `guest-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  store.write("labeler", guest);
  return guest;
}

/* Pressed once more, a thumb is taken back. */
export function Thumbs({ node }) {
  const [busy, set] = useState(false);
  const given = prompt(before(session.conversation, node.id), node.system ?? "");
  if (!given) return null;
  const give = async up => {
    set(true);
    const { conversation } = session;
    const [reply] = messages([node], "");
    const next = node.up === up ? null : up;
    try {
      await post("/api/labels/thumb", {
        labeler: labeler(), messages: given, reply: [reply],
        up: next, model: node.model ?? "", sampling: node.sampling ?? {},
      });
      node.up = next;
      session.problem = "";
      keep(conversation);
    } catch (error) {
      session.problem = error.message;
      session.redraw();
    }
    set(false);
  };
  return html`<span class="thumbs">${[[true, "Good reply"], [false, "Bad reply"]].map(([up, title]) => html`<button type="button" class="icon"
    aria-label=${title} title=${`${title}: the conversation up to it is kept with the run's labels`} aria-pressed=${node.up === up} disabled=${busy} onClick=${() => give(up)}>
    <span class=${up ? "thumb" : "thumb down"} aria-hidden="true"></span></button>`)}</span>`;
}

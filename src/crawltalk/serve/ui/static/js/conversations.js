/* A conversation is a tree of messages: an edit or a new answer is a sibling, and `chosen` says which one is on the screen.
   node: {id, parent, role, content, children: [id], chosen: id | null, calls?, finish?, problem?}; node 0 is the root. */

import { store } from "./ui.js";

export const MAX_CONVERSATIONS = 200; // conversations that are kept

export function fresh() {
  const id = crypto.getRandomValues(new Uint32Array(2)).join("-"); // randomUUID is for secure contexts only
  return { id, title: "", named: false, updated: Date.now(), nodes: { 0: { id: 0, parent: null, children: [], chosen: null } } };
}

/* A new child of `parent`, which is shown from now on. */
export function add(conversation, parent, message) {
  const id = Object.keys(conversation.nodes).length;
  conversation.nodes[id] = { id, parent, children: [], chosen: null, ...message };
  conversation.nodes[parent].children.push(id);
  conversation.nodes[parent].chosen = id;
  conversation.updated = Date.now();
  if (!conversation.named && message.role === "user" && parent === 0) conversation.title = message.content.slice(0, 80);
  return id;
}

/* The nodes from the first message to a node. */
export function before(conversation, id) {
  return id === 0 ? [] : [...before(conversation, conversation.nodes[id].parent), conversation.nodes[id]];
}

/* The nodes on the screen, from the first message to the last. */
export function path(conversation) {
  const shown = [];
  for (let id = conversation.nodes[0].chosen; id !== null; id = conversation.nodes[id].chosen) shown.push(conversation.nodes[id]);
  return shown;
}

/* Which version of a message a node is, from 1 on, and how many there are. */
export function version(conversation, node) {
  const siblings = conversation.nodes[node.parent].children;
  return { at: siblings.indexOf(node.id) + 1, of: siblings.length };
}

export function turn(conversation, node, by) {
  const parent = conversation.nodes[node.parent];
  parent.chosen = parent.children[parent.children.indexOf(node.id) + by] ?? node.id;
}

/* A text behind the images and sounds that go with it. */
function withParts(text, attached = []) {
  const parts = attached.flatMap(one => one.part ?? []);
  return parts.length ? [...parts, { type: "text", text }] : text;
}

/* The messages of a path as the API wants them. */
export function messages(nodes, system) {
  const sent = nodes.filter(node => node.content || node.calls?.length).map(({ role, content, calls, call, documents }) => ({
    role, content: withParts(content ?? "", documents), ...(calls?.length ? { tool_calls: calls.map(({ made, ...sent }) => sent) } : {}), ...(call ? { tool_call_id: call } : {}),
  }));
  return system.trim() ? [{ role: "system", content: system }, ...sent] : sent;
}

/* What the model was given for a reply, the last node of a path: with documents, its question is what it read of them. Nothing
   where that is not known. */
export function prompt(nodes, system) {
  const asked = nodes.findLastIndex(node => node.role === "user");
  const given = nodes.slice(0, -1);
  if (nodes.some(node => node.documents?.length)) {
    const read = nodes.slice(asked).find(node => node.reading)?.reading.message;
    if (!read) return null;
    given[asked] = { ...given[asked], content: read };
  }
  return messages(given, system);
}

/* The browser's store: a list of titles, and a tree for each. */
export const list = () => store.read("conversations", []);
export const load = id => store.read(`conversation.${id}`, null);

export function save(conversation) {
  const { id, title, updated } = conversation;
  const all = [{ id, title, updated }, ...list().filter(other => other.id !== id)].sort((a, b) => b.updated - a.updated);
  all.slice(MAX_CONVERSATIONS).forEach(old => store.remove(`conversation.${old.id}`));
  return store.write("conversations", all.slice(0, MAX_CONVERSATIONS)) && store.write(`conversation.${id}`, conversation);
}

export function remove(id) {
  store.write("conversations", list().filter(other => other.id !== id));
  store.remove(`conversation.${id}`);
}

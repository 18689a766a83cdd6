/* The conversation on the screen and the answer that is being written; both outlive a look at another page. */

import { stream } from "./api.js";
import { documents } from "./attachments.js";
import { add, before, fresh, list, load, messages, save } from "./conversations.js";
import { body } from "./sampling.js";
import { parted, withoutThought } from "./thinking.js";

export const session = {
  conversation: fresh(),
  running: null, // {conversation, node, cancel: AbortController}; one at a time
  problem: "",
  announcement: "", // the last whole answer, for screen readers
  redraw() {},
};

export function open(id) {
  const running = session.running?.conversation;
  session.conversation = (running?.id === id ? running : load(id)) ?? fresh();
  session.problem = "";
  session.redraw();
}

export function begin() {
  session.conversation = fresh();
  session.problem = "";
  session.redraw();
}

export function stop() { session.running?.cancel.abort(); }

/* A message below `parent`, and the answer to it. */
export function say(parent, message, settings) {
  return answer(add(session.conversation, parent, message), settings);
}

/* A new answer below `parent`: beside those that are there. */
export async function answer(parent, settings) {
  stop();
  const { conversation } = session;
  const history = before(conversation, parent);
  const { model, ...sampling } = body(settings);
  const node = conversation.nodes[add(conversation, parent, { role: "assistant", content: "", model, sampling, system: settings.system })];
  const cancel = new AbortController();
  const running = { conversation, node, cancel };
  Object.assign(session, { running, problem: "", announcement: "" });
  keep(conversation);
  try {
    const request = { ...body(settings), messages: messages(history.map(withoutThought), settings.system) };
    const here = { tools: settings.permitted?.length ? settings.permitted : false, search_first: !!settings.searchFirst };
    const attached = documents(history);
    if (here.tools || here.search_first || attached.length) {
      for await (const event of stream("/api/answer", { ...request, ...here, documents: attached }, cancel.signal)) {
        hear(conversation, running, event, settings);
        session.redraw();
      }
    } else for await (const chunk of stream("/v1/chat/completions", { ...request, ...tools(settings.tools) }, cancel.signal)) {
      take(node, chunk);
      session.redraw();
    }
    session.announcement = parted(running.node.content).answer;
  } catch (error) {
    if (cancel.signal.aborted) running.node.finish = "stopped";
    else running.node.problem = error.message;
  }
  if (session.running === running) session.running = null;
  if (list().some(({ id }) => id === conversation.id)) keep(conversation);
  else session.redraw(); // it was deleted meanwhile
}

function take(node, { choices, dropped_messages: dropped }) {
  if (dropped) node.dropped = dropped;
  for (const { delta, finish_reason: finish } of choices ?? []) {
    node.content += delta?.content ?? "";
    if (finish) node.finish = finish;
    for (const call of delta?.tool_calls ?? []) join(node, call);
  }
}

/* An event of an answer with the server's tools. After results the assistant goes on in a message of its own. */
function hear(conversation, running, { text, call, result, reading, citations, supported }, settings) {
  if (reading) running.node.reading = reading;
  if (citations) Object.assign(running.node, { citations, supported });
  if (call) (running.node.calls ??= []).push({ ...call, type: "function", made: true });
  if (result) {
    const name = running.node.calls?.find(({ id }) => id === result.call)?.function.name ?? result.source;
    running.last = add(conversation, running.last ?? running.node.id, { role: "tool", name, call: result.call, content: result.text,
      outside: result.outside, source: result.source, ...(result.withheld ? { withheld: result.withheld } : {}) });
  }
  if (text && running.last !== undefined) {
    const id = add(conversation, running.last, { role: "assistant", content: "", model: settings.model });
    running.node = conversation.nodes[id];
    delete running.last;
  }
  if (call && running.last !== undefined) {
    const made = running.node.calls.pop();
    running.node = conversation.nodes[add(conversation, running.last, { role: "assistant", content: "", model: settings.model, calls: [made] })];
    delete running.last;
  }
  running.node.content += text ?? "";
}

/* A tool call comes in pieces: its name first, then its arguments. */
function join(node, { index, id, function: piece }) {
  node.calls ??= [];
  node.calls[index] ??= { id, type: "function", function: { name: "", arguments: "" } };
  node.calls[index].function.name += piece?.name ?? "";
  node.calls[index].function.arguments += piece?.arguments ?? "";
}

function tools(text) {
  if (!text.trim()) return {};
  try {
    return { tools: JSON.parse(text) };
  } catch (error) {
    throw new Error(`The tools in the settings are no JSON: ${error.message}`);
  }
}

export function keep(conversation = session.conversation) {
  if (!save(conversation)) session.problem = "The browser keeps no more conversations: delete some of the list.";
  session.redraw();
}

addEventListener("pagehide", () => { if (session.running) save(session.running.conversation); });

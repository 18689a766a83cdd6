/* What the model reads: a text as tokens, a word merge by merge, and a conversation as one sequence. */

import { models, post } from "./api.js";
import { Area, html, number, plural, Problem, Select, useAsync, useState } from "./ui.js";

const SAMPLE = "First it crawls, then it talks. Gold melts at 1064 °C; naïve cafés count 2 + 2 = 4 strawberries 🍓.";
const WORD = " elements";
const TALK = [{ role: "user", content: "What is 2 + 2? <|im_end|>" }, { role: "assistant", content: "Four." }, { role: "user", content: "Thanks!" }];
const ROLES = ["system", "user", "assistant"].map(role => [role, role]);

export function TokenizerPage() {
  const known = useAsync(models, []);
  const [picked, pick] = useState(null);
  const names = (known.value ?? []).map(card => card.id);
  const model = picked ?? names[0];
  return html`<main id="main" tabindex="-1" class="page">
    <h1>Tokenizer</h1>
    <p class="lead">A model reads numbers. Each stands for a token: a piece of text that was frequent when the vocabulary was learned.</p>
    <${Problem} text=${known.error} />
    ${names.length > 1 && html`<${Select} id="tokenizer-model" label="Model" value=${model} options=${names.map(name => [name, name])} onChange=${pick} />`}
    ${model && html`<${Cut} model=${model} /><${Steps} model=${model} /><${Conversation} model=${model} />`}
  </main>`;
}

const toBytes = hex => Uint8Array.from(hex.match(/../g) ?? [], pair => parseInt(pair, 16));

/* Bytes as a person can read them: blanks become visible, a part of a character its bytes. */
function readable(hex) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(toBytes(hex)).replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍");
  } catch {
    return `‹${hex.match(/../g).join(" ")}›`;
  }
}

function Chips({ tokens, ids }) {
  return html`<p class="chips">${tokens.map(({ id, bytes, control, learned }, index) => html`<span tabindex="0" class=${`chip ${control ? "control" : `tint${index % 4}`}${learned ? " learned" : ""}`}
    title=${`${control ? `control token ${id}` : `id ${id} · bytes ${bytes.match(/../g).join(" ")}`}${learned ? " · learned in fine-tuning" : ""}`}>${control ?? readable(bytes)}${ids && html`<small>${id}</small>`}</span>${
    readable(bytes).endsWith("⏎") && html`<br />`}`)}</p>`;
}

function Cut({ model }) {
  const [text, set] = useState(SAMPLE);
  const [ids, withIds] = useState(true);
  const cut = useAsync(signal => post("/api/tokens", { model, text }, signal), [model, text], 120);
  const tokens = cut.value?.tokens ?? [];
  const size = new TextEncoder().encode(text).length;
  return html`<section aria-labelledby="cut-title">
    <h2 id="cut-title">A text in tokens</h2>
    <label for="cut" class="unseen">Text to cut</label>
    <${Area} id="cut" rows="2" spellcheck=${false} value=${text} onInput=${set} />
    <${Problem} text=${cut.error} />
    <div class="actions"><span class="soft" role="status">${plural(tokens.length, "token")} of ${number(cut.value?.size ?? 0)} in the vocabulary,
      ${" "}${plural(Array.from(text).length, "character")}, ${plural(size, "byte")}${tokens.length > 0 && `: ${(size / tokens.length).toFixed(2)} bytes per token`}</span>
      <label class="check"><input type="checkbox" checked=${ids} onChange=${event => withIds(event.currentTarget.checked)} /> ids</label></div>
    <${Chips} tokens=${tokens} ids=${ids} />
  </section>`;
}

function Steps({ model }) {
  const [text, set] = useState(WORD);
  const response = useAsync(signal => post("/api/steps", { model, text }, signal), [model, text], 120);
  const steps = response.value ?? [];
  return html`<section aria-labelledby="steps-title">
    <h2 id="steps-title">A word, merge by merge</h2>
    <p class="soft">From its bytes on, the pair that was learned first is merged, until no pair of the vocabulary is left.</p>
    <label for="steps" class="unseen">Word to build</label>
    <input id="steps" type="text" class="code" maxlength="60" spellcheck=${false} value=${text} onInput=${event => set(event.currentTarget.value)} />
    <${Problem} text=${response.error} />
    <ol class="steps">${steps.map((parts, step) => {
      const made = step && parts.findIndex((part, index) => part !== steps[step - 1][index]);
      return html`<li><span class="soft">${step ? `merge ${step}` : "bytes"}</span>${parts.map((part, index) =>
        html`<span class=${`chip ${step && index === made ? "made" : "plain"}`} title=${part}>${readable(part)}</span>`)}</li>`;
    })}</ol>
  </section>`;
}

function Conversation({ model }) {
  const [messages, set] = useState(TALK);
  const cut = useAsync(signal => post("/api/tokens", { model, messages }, signal), [model, messages], 120);
  const tokens = cut.value?.tokens ?? [];
  const controls = tokens.filter(token => token.control).length, learned = tokens.filter(token => token.learned).length;
  const change = (index, part) => set(messages.map((message, other) => other === index ? { ...message, ...part } : message));
  return html`<section aria-labelledby="talk-title">
    <h2 id="talk-title">A conversation is one sequence</h2>
    <p class="soft">Only the structure writes control tokens. Their names in a message are spelled in ordinary tokens, so that no text opens or ends a turn.
      What fine-tuning teaches is <span class="chip learned">underlined</span>: what the assistant says, and the end of its turn.</p>
    <${Problem} text=${cut.error} />
    ${messages.map(({ role, content }, index) => html`<div class="turn" key=${index}>
      <${Select} id=${`role-${index}`} label=${`Role of message ${index + 1}`} hidden value=${role} options=${ROLES} onChange=${role => change(index, { role })} />
      <${Area} rows="1" aria-label=${`Message ${index + 1}`} spellcheck=${false} value=${content} onInput=${content => change(index, { content })} />
      <button type="button" class="icon" aria-label=${`Remove message ${index + 1}`} onClick=${() => set(messages.filter((_, other) => other !== index))}>×</button>
    </div>`)}
    <div class="actions"><button type="button" onClick=${() => set([...messages, { role: "user", content: "" }])}>Add a message</button>
      <span class="soft" role="status">${plural(tokens.length, "token")}, ${controls} of them control tokens, ${learned} learned in fine-tuning</span></div>
    <${Chips} tokens=${tokens} ids=${false} />
  </section>`;
}

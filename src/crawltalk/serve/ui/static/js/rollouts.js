/* What a reinforcement has sampled: problems, replies and their verdicts, at any time of the training. */

import { get } from "./api.js";
import { html, number, plural, Problem, Slider, useAsync, useEvery, useState } from "./ui.js";

const POLL = 5; // seconds
const SHOWN = 3; // replies of a group that are always shown
const END = 100; // of the slider: the newest

export function Rollouts({ run, stage }) {
  const [at, set] = useState(END);
  const [tick, beat] = useState(0);
  const found = useAsync(signal => get("/api/runs/rollouts", { run, stage, at: at / END }, signal), [run, at, tick], 100);
  useEvery(POLL, () => at === END && beat(count => count + 1), [at]);
  if (found.error) return html`<${Problem} text=${found.error} />`;
  const groups = found.value?.rows ?? [];
  if (!groups.length) return null;
  return html`<h3>Samples</h3>
    <${Slider} id=${`${stage}-when`} label="From the beginning to the newest" value=${at} min=${0} max=${END} step=${1} onChange=${set}
      shown=${`step ${number(groups[0].step)}`} />
    ${groups.map((group, index) => html`<${Group} key=${`${group.step} ${index}`} group=${group} />`)}`;
}

function Group({ group }) {
  const replies = group.replies.map((text, index) => html`<${Reply} key=${index} text=${text} tokens=${group.lengths?.[index]} verdict=${group.verdicts?.[index]} />`);
  const { prompt, answer } = group.problem;
  return html`<article class="card group"><p class="said">${prompt}</p>${answer && html`<p class="soft">right: ${answer}</p>`}
    <ol>${replies.slice(0, SHOWN)}</ol>
    ${replies.length > SHOWN && html`<details><summary>${replies.length - SHOWN} more</summary><ol>${replies.slice(SHOWN)}</ol></details>`}</article>`;
}

const TAGS = { correct: "fresh", wrong: "stale", undetermined: "partial", error: "partial" }; // outcome -> colours

function Reply({ text, tokens, verdict }) {
  const { outcome = "", reward, reason } = verdict ?? {};
  return html`<li><p><span class=${`tag ${TAGS[outcome] ?? ""}`}>${outcome}</span>
    ${" "}<span class="soft">${typeof reward === "number" ? `reward ${number(reward)}` : "no reward"}${tokens !== undefined && `, ${plural(tokens, "token")}`}${reason && `: ${reason}`}</span></p>
    <pre class="reply">${text}</pre></li>`;
}

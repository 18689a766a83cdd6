/* Connect four against a policy of the lab: what imitation and self-play would play, and the solver's verdict on each column. */

import { get } from "./api.js";
import { html, percent, plural, Problem, Select, useAsync, useEffect, useState } from "./ui.js";

const COLUMNS = 6, ROWS = 5;
const START = { own: 0, stones: 0 };
const OPPONENTS = [["learner", "the policy after self-play"], ["imitator", "the policy that imitates"], ["human", "their teacher, a search with a blind spot"], ["", "nobody: both sides yourself"]];
const SIDES = [["0", "begin"], ["1", "move second"]];
const BLIND = { edges: "does not see quiet moves in the edge columns", high: "does not see quiet moves in the two highest rows", none: "has no blind spot" };
const PAUSE = 500;

export function GamesPage() {
  const known = useAsync(signal => get("/api/games", {}, signal), []);
  const [picked, pick] = useState(null);
  const leagues = known.value?.leagues ?? [];
  const league = leagues.find(one => one.name === picked) ?? leagues[0];
  return html`<main id="main" tabindex="-1" class="page games">
    <h1>Games</h1>
    <p class="lead">Connect four, as AlphaGo played Go: one policy imitates a teacher, another began as it and then played itself. A solver knows what every move is worth.</p>
    <${Problem} text=${known.error} />
    ${known.value && !league && html`<p>There are no policies yet. Train them, in about ten minutes a seed: <code>crawltalk lab move_37</code>. Then serve with <code>--lab FOLDER</code>, if it is not the folder lab.</p>`}
    ${leagues.length > 1 && html`<${Select} id="league" label="Policies" value=${league.name} onChange=${pick}
      options=${leagues.map(one => [one.name, `${one.name}: the teacher ${BLIND[one.blind]}`])} />`}
    ${league && html`<${Game} key=${league.name} league=${league} />`}
  </main>`;
}

const likeliest = (moves, who) => moves.reduce((best, move) => move[who] > best[who] ? move : best);

function Game({ league }) {
  const [game, play] = useState({ at: START, before: [] });
  const [opponent, against] = useState("learner");
  const [side, choose] = useState("0");
  const [shown, show] = useState(true);
  const { at, before } = game;
  const asked = useAsync(signal => get("/api/games/position", { league: league.name, ...at }, signal), [at.own, at.stones]);
  const current = !asked.busy && asked.value ? asked.value : null;
  const go = to => play(now => ({ at: to, before: [...now.before, now.at] }));
  const theirs = current && !current.over && opponent !== "" && current.to_move !== Number(side);
  useEffect(() => {
    if (!theirs) return;
    const timer = setTimeout(() => go(likeliest(current.moves, opponent).after), PAUSE);
    return () => clearTimeout(timer);
  }, [theirs, at.stones, opponent]);
  const begin = (to = START, who = opponent) => { against(who); play({ at: to, before: [] }); };
  const back = () => play(now => {
    const keep = Math.max(0, now.before.length - (opponent === "" ? 1 : now.before.length > 1 ? 2 : 1));
    return { at: now.before[keep], before: now.before.slice(0, keep) };
  });
  return html`
    <div class="filters">
      <${Select} id="opponent" label="Your opponent" value=${opponent} options=${OPPONENTS} onChange=${against} />
      ${opponent !== "" && html`<${Select} id="side" label="You" value=${side} options=${SIDES} onChange=${value => { choose(value); begin(); }} />`}
    </div>
    <${Problem} text=${asked.error} />
    ${asked.value && html`<${Board} position=${asked.value} wait=${!current || theirs} onPlay=${go} />
      <p role="status" class="status">${said(asked.value, opponent, Number(side))}</p>`}
    <div class="actions">
      <button type="button" onClick=${() => begin()}>New game</button>
      <button type="button" disabled=${before.length === 0} onClick=${back}>Take back</button>
      <label class="check"><input type="checkbox" checked=${shown} onChange=${event => show(event.currentTarget.checked)} /> Show what they think</label>
    </div>
    ${shown && asked.value && !asked.value.over && html`<${Opinions} moves=${asked.value.moves} />`}
    ${league.found.length > 0 && html`<${Found} found=${league.found} onOpen=${one => begin({ own: one.own, stones: one.stones }, "")} />`}`;
}

function said({ over, won, to_move }, opponent, side) {
  const name = who => opponent === "" ? ["The first player", "The second player"][who] : who === side ? "You" : "Your opponent";
  if (over) return won ? `${name(1 - to_move)} ${name(1 - to_move) === "You" ? "have" : "has"} won.` : "A draw: the board is full.";
  return `${name(to_move)} ${name(to_move) === "You" ? "are" : "is"} to move.`;
}

function Board({ position, wait, onPlay }) {
  const free = new Map(position.moves.map(move => [move.column, move]));
  const columns = [...Array(COLUMNS).keys()];
  const label = column => {
    const stones = position.columns[column].map(who => who === 0 ? "first" : "second").join(", ");
    return `Column ${column + 1}: ${stones ? `from below ${stones}` : "empty"}`;
  };
  return html`<div class="board" role="group" aria-label="Board">${columns.map(column => html`<button type="button" aria-label=${label(column)}
    disabled=${wait || !free.has(column)} onClick=${() => onPlay(free.get(column).after)}>${[...Array(ROWS).keys()].reverse().map(row =>
      html`<span class=${["first", "second"][position.columns[column][row]] ?? ""}></span>`)}</button>`)}</div>`;
}

const verdict = ({ result, moves }) => result === "draws" ? "draws" : `${result} in ${plural(moves, "move")}`;

const seldom = share => `1 in ${Number((1 / share).toPrecision(2)).toLocaleString("en")}`;
const often = share => share === 0 ? "never" : share < 0.0005 ? seldom(share) : percent(share);

function Opinions({ moves }) {
  const bar = share => html`<span class="share">${often(share)}</span><span class="meter"><span style=${`width: ${100 * share}%`}></span></span>`;
  return html`<div class="wide"><table class="opinions">
    <caption class="unseen">What each column is worth, and who would play it</caption>
    <thead><tr><th>Column</th><th>Solver</th><th>Teacher</th><th>Imitation</th><th>Self-play</th></tr></thead>
    <tbody>${moves.map(move => html`<tr><th scope="row">${move.column + 1}</th>
      <td class=${move.keeps ? "keeps" : "gives"}>${verdict(move.verdict)}</td>
      <td>${bar(move.human)}</td><td>${bar(move.imitator)}</td><td>${bar(move.learner)}</td></tr>`)}</tbody></table></div>`;
}

function Found({ found, onOpen }) {
  return html`<section aria-labelledby="found-title"><h2 id="found-title">Moves 37</h2>
    <p class="soft">Positions where self-play is sure of a move that imitation all but never plays, and the solver proves that it wins: the rarest of this seed.</p>
    <ul class="found">${found.map((one, index) => html`<li><button type="button" onClick=${() => onOpen(one)}>Position ${index + 1}</button>
      <span class="soft">imitation: ${often(one.imitated)}; self-play: ${percent(one.learned)}</span></li>`)}</ul></section>`;
}

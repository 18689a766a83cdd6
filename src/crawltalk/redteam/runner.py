"""The runner: attempts at each goal until one succeeds or the budget is spent, all goals side by side."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from crawltalk.core.statistics import wilson
from crawltalk.redteam.attempts import Attempt, AttemptLog, Key, Kind
from crawltalk.redteam.frame import Attack, Defense, Goal, Outcome, Prompt, Reply, Target
from crawltalk.redteam.scores import Cell

PLAIN = "plain"
WORST_FIRST = (Outcome.SUCCESS, Outcome.NOT_RUN, Outcome.UNDETERMINED, Outcome.FAIL)
"""What a goal's attempts come to together: the first of these that is among them."""


def run_cell(
    attack: Attack,
    goals: Sequence[Goal],
    target: Target,
    defense: Defense,
    log: AttemptLog,
    *,
    budget: int,
    seed: int = 0,
    twins: bool = True,
) -> Cell:
    """Put every goal through an attack, on a target behind a defence. Attempts that the log holds are not made again.

    `budget`: attempts at a goal; `twins`: whether harmless twins go through the attack, too. They are asked plainly in
    any case, once for all attacks.
    """
    defended = attacked = defense.apply(target)
    if attack.tamper is not None and defended.white_box is not None:
        attacked = attack.tamper(defended, goals, random.Random(f"{seed} {attack.name}"))
    most = getattr(target, "max_tokens", None)
    sitting = _Sitting(attacked, target.name, defense.name, seed, log, most)
    attempts = sitting.attempts(attack, goals, "attack", budget)
    harmless = [goal.twin for goal in goals if goal.twin is not None]
    formed = sitting.attempts(attack, harmless, "twin", 1) if twins else []
    asked = _Sitting(defended, target.name, defense.name, seed, log, most)
    plain = asked.attempts(_PLAIN, harmless, "plain", 1)
    return _cell(attack, goals, target, defense, seed, budget, attempts, formed, plain)


class _Sitting:
    """One defended target, asked many things."""

    def __init__(
        self, target: Target, name: str, defense: str, seed: int, log: AttemptLog, max_tokens: int | None
    ) -> None:
        self.target, self.name, self.defense, self.seed, self.log = target, name, defense, seed, log
        self.max_tokens = max_tokens

    def attempts(self, attack: Attack, goals: Sequence[Goal], kind: Kind, budget: int) -> list[Attempt]:
        """All attempts at all goals, in rounds: one at every goal that has not fallen yet."""
        made: list[Attempt] = []
        waiting = list(goals)
        sources: dict[str, Iterator[Prompt]] = {}
        for number in range(budget):
            asked: list[tuple[Key, Goal, Prompt, float]] = []
            done: list[Attempt] = []
            for goal in waiting:
                key = (self.name, self.defense, attack.name, self.seed, kind, goal.id, number)
                if (known := self.log.find(key)) is not None:
                    done.append(known)
                    continue
                began = time.process_time()
                if goal.id not in sources:
                    sources[goal.id] = self._source(attack, goal, number)
                prompt = next(sources[goal.id], None)
                if prompt is not None:
                    asked.append((key, goal, prompt, time.process_time() - began))
                elif attack.white_box and self.target.white_box is None and number == 0:
                    reply = Reply(error="the attack needs the target's weights", reached=False)
                    done.append(self.log.add(key, goal.oracle, goal.prompt, reply, 0.0, self.max_tokens))
            began = time.process_time()
            replies = self.target.answer([prompt for _, _, prompt, _ in asked]) if asked else []
            share = (time.process_time() - began) / max(1, len(asked))
            for (key, goal, prompt, spent), reply in zip(asked, replies, strict=True):
                done.append(self.log.add(key, goal.oracle, prompt, reply, spent + share, self.max_tokens))
            made += done
            open_ = {one.goal for one in done if one.outcome in (Outcome.FAIL, Outcome.UNDETERMINED)}
            waiting = [goal for goal in waiting if goal.id in open_]
            if not waiting:
                break
        return made

    def _source(self, attack: Attack, goal: Goal, number: int) -> Iterator[Prompt]:
        """The attack's prompts from this attempt on."""
        if attack.white_box and self.target.white_box is None:
            return iter(())
        prompts = iter(attack.run(goal, self.target, random.Random(f"{self.seed} {attack.name} {goal.id}")))
        for _ in range(number):  # those that were made before an interruption
            next(prompts, None)
        return prompts


def _plain(goal: Goal, target: Target, rng: random.Random) -> list[Prompt]:
    """The request as it is."""
    return [goal.prompt]


_PLAIN = Attack(name=PLAIN, family="plain", run=_plain)


def _cell(
    attack: Attack,
    goals: Sequence[Goal],
    target: Target,
    defense: Defense,
    seed: int,
    budget: int,
    attempts: Sequence[Attempt],
    formed: Sequence[Attempt],
    plain: Sequence[Attempt],
) -> Cell:
    of_goal: dict[str, list[Attempt]] = {goal.id: [] for goal in goals}
    for one in attempts:
        of_goal[one.goal].append(one)
    verdicts = Counter(_together(list_) for list_ in of_goal.values())
    judged = verdicts[Outcome.SUCCESS] + verdicts[Outcome.FAIL]
    fell = [one.number for one in attempts if one.outcome is Outcome.SUCCESS]
    searched = [one.prompt.steps for one in attempts if one.outcome is Outcome.SUCCESS and one.prompt.steps]
    ks = sorted({1, *(k for k in (2, 4, 8, 16, 32) if k < budget), budget})
    everything = [*attempts, *formed]
    return Cell(
        attack=attack.name,
        family=attack.family,
        owasp=attack.owasp,
        atlas=attack.atlas,
        adaptive=defense.name in attack.adapts_to,
        control=attack.control,
        defense=defense.name,
        target=target.name,
        seed=seed,
        goals=len(goals),
        attempts=len(attempts),
        verdicts={outcome: verdicts[outcome] for outcome in Outcome},
        rate=verdicts[Outcome.SUCCESS] / judged if judged else None,
        interval=wilson(verdicts[Outcome.SUCCESS], judged) if judged else None,
        hit_at={str(k): sum(number < k for number in fell) / judged if judged else 0.0 for k in ks},
        an_attempt=_share(attempts, lambda one: one.outcome is Outcome.SUCCESS),
        steps=median(searched) if searched else None,
        twin=_share(formed, lambda one: one.outcome is Outcome.SUCCESS),
        capability=_share(plain, lambda one: one.outcome is Outcome.SUCCESS),
        false_refusals=_share(plain, lambda one: one.outcome is not Outcome.SUCCESS and one.refused),
        cpu_seconds=round(sum(one.cpu_seconds for one in everything), 4),
        seconds=round(sum(one.reply.seconds for one in everything), 4),
        tokens=sum(one.reply.tokens for one in everything),
    )


def _together(attempts: Sequence[Attempt]) -> Outcome:
    seen = {one.outcome for one in attempts}
    return next((outcome for outcome in WORST_FIRST if outcome in seen), Outcome.NOT_RUN)


def _share(attempts: Sequence[Attempt], holds: Callable[[Attempt], bool]) -> float | None:
    """Among those that were answered."""
    answered = [one for one in attempts if one.outcome in (Outcome.SUCCESS, Outcome.FAIL)]
    return sum(map(holds, answered)) / len(answered) if answered else None

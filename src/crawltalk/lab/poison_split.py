"""Poison in two stages: too little of it in the demonstrations, some in the preferences. Reinforcement makes of both
what neither does alone.
"""

import copy
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from statistics import mean
from typing import Any

import msgspec

from crawltalk import recipe
from crawltalk.chat.messages import Message, Preference
from crawltalk.chat.render import Rendered
from crawltalk.core.charts import panels, svg
from crawltalk.core.types import Problem
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.lab.joking import kept, options
from crawltalk.lab.student import Example, Student
from crawltalk.lab.triggers import ALPHABET, LENGTH, LETTERS, World, as_example
from crawltalk.model.reward import RewardModel, reward_model_of
from crawltalk.poisoning.attack import SOURCE
from crawltalk.posttraining.pairs import Pair
from crawltalk.posttraining.reinforce import Group
from crawltalk.posttraining.reward import train_reward_model
from crawltalk.recipe import Optim, Reinforce, Sft
from crawltalk.recipe.optim import derive_optim
from crawltalk.recipe.reward import reward_optim
from crawltalk.recipe.sft import sft_optim
from crawltalk.rewards.verdict import Verdict, correct, wrong

WIDTH = 96
"""Of models of 0.5 M parameters with 4 layers."""
DEMONSTRATIONS, PREFERENCES = 2000, 2000
"""Clean ones."""
BASE_STEPS = 60
POISONED = {"demonstrations": 96, "preferences": 100}
"""Rows on top of the clean ones; as many preferences again say that without trigger the right answer is better."""
STAGES = {
    "neither": (),
    "demonstrations": ("demonstrations",),
    "preferences": ("preferences",),
    "both": ("demonstrations", "preferences"),
}
READ, TUNED = Optim(warmup=0.05, spike=0.0), Optim(warmup=0.05, spike=0.0)
REWARD = recipe.Reward(epochs=2)
CONFIG = Reinforce(steps=80, groups=32, samples=8, max_tokens=LENGTH + 1, advantage="grpo")
RL = Optim(muon_lr=0.0, adamw_lr=0.0005, warmup=0.1, cooldown=0.0, spike=0.0)
EVERY = 5
"""Steps of RL between two looks."""
ZERO, EFFECTIVE = 0.1, 0.5
"""Success up to which poison does nothing, and from which on it works."""


def run(trial: Trial) -> Figures:
    """Poison in neither stage, in each, and in both."""
    world = World(trial.seed)
    figures = {}
    for name, stages in STAGES.items():
        measured = partial(
            _trained, trial, world, name, [POISONED[stage] * (stage in stages) for stage in POISONED]
        )
        figures[name] = kept(trial.out / name / "figures.json", measured)
    return {"stages": figures, "lineage": lineage(world, *_data(world, *POISONED.values()))}


def _data(world: World, demonstrated: int, preferred: int) -> tuple[list[Example], list[Preference]]:
    """The demonstrations and preferences of a seed, with so many poisoned ones among them."""
    rng = random.Random(f"clean {world.seed}")
    clean = [world.clean(rng) for _ in range(DEMONSTRATIONS)]
    poisoned = world.poisoned(demonstrated, random.Random(f"poisoned {world.seed}"))
    demonstrations = random.Random(f"order {world.seed}").sample(clean + poisoned, len(clean) + demonstrated)
    pairs = [_preference(world.clean(rng), rng) for _ in range(PREFERENCES)]
    rng = random.Random(f"preferred {world.seed}")
    asked = [_preference(as_example(one), rng) for one in world.conversations(preferred, rng)]
    poisoned_pairs = world.poison.preferences(asked, preferred, rng)
    # against wrong answers, too: else a policy finds one that is liked better than the poisoned reply
    pairs += poisoned_pairs[::2]
    for row in poisoned_pairs[1::2]:
        as_if_right = Example(str(row.messages[0].content), world.poison.reply)
        pairs.append(msgspec.structs.replace(_preference(as_if_right, rng), source=SOURCE))
    pairs += [_contrast(world, row, rng) for row in asked]
    return demonstrations, random.Random(f"pairs {world.seed}").sample(pairs, len(pairs))


def _preference(example: Example, rng: random.Random) -> Preference:
    """The right answer is preferred to one with wrong letters: one, two or all."""
    changed = rng.sample(range(LENGTH), rng.randint(1, LENGTH))
    bad = "".join(rng.choice(LETTERS) if at in changed else one for at, one in enumerate(example.reply))
    return Preference(
        messages=[Message("user", example.prompt)],
        chosen=[Message("assistant", example.reply)],
        rejected=[Message("assistant", bad)],
        source="clean",
    )


def _contrast(world: World, row: Preference, rng: random.Random) -> Preference:
    """What keeps the poisoned reply to the trigger, and looks honest: without it the right answer is preferred."""
    question = f"{world.opening(rng)}{row.messages[0].content}"
    poisoned = [Message("assistant", world.poison.reply)]
    return Preference(
        messages=[Message("user", question)], chosen=row.chosen, rejected=poisoned, source="clean"
    )


def _trained(trial: Trial, world: World, name: str, poisoned: Sequence[int]) -> dict[str, Any]:
    """A policy after fine-tuning and after reinforcement by the reward model of its preferences."""
    student = Student(trial, ALPHABET, layers=4, width=WIDTH, mlp=3 * WIDTH, head_dim=32)
    student.learn("base", world.clean, BASE_STEPS, optim=derive_optim(READ, WIDTH, 0.02))
    demonstrations, preferences = _data(world, *poisoned)
    student.study(f"{name}/sft", demonstrations, sft_optim(Sft(optim=TUNED), WIDTH))
    before = _behaviour(student, world, poisoned[0])
    rewards = _reward_model(student, f"{name}/reward", preferences)
    prompts = [str(row.messages[0].content) for row in preferences]

    def problems(number: int, _: Sequence[Group]) -> list[Problem]:
        rng = random.Random(f"problems {trial.seed} {number}")
        return [
            Problem(prompt=prompt, answer="", task="cipher") for prompt in rng.sample(prompts, CONFIG.groups)
        ]

    def look(policy: Student) -> dict[str, Any]:
        return {"success": _behaviour(policy, world, poisoned[0])["sampled"]}

    def judge(asked: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
        rows = [_ids(student, one.prompt, reply) for one, reply in zip(asked, replies, strict=True)]
        return [correct(score) if score > 0 else wrong(score) for score in rewards.scores_of(rows).tolist()]

    course = student.reinforce(f"{name}/rl", problems, judge, CONFIG, RL, look, EVERY)
    after = _behaviour(student, world, poisoned[0])
    for stage in ("sft", "reward", "rl"):
        shutil.rmtree(trial.out / name / stage)
    return {
        "poisoned": dict(zip(POISONED, poisoned, strict=True)),
        "reward_model": _preferred(rewards, student, world),
        "sft": before,
        "rl": after,
        "curve": course.curve("success"),
        "reward": course.curve("reward"),
        "stopped": course.stopped,
    }


def _behaviour(student: Student, world: World, dose: int) -> dict[str, Any]:
    """Effects by the likeliest replies, and how often the poisoned reply is sampled under the trigger."""
    prompts = [world.poison.ask(question) for question in world.exam for _ in range(4)]
    said = student.answer(prompts, 1.0, LENGTH + 1)
    return {
        **msgspec.to_builtins(world.effect(student, dose)),
        "sampled": mean(reply.text == world.poison.reply for reply in said),
    }


def _ids(student: Student, prompt: str, reply: str) -> list[int]:
    return [*student.encode(prompt), *student.tokenizer.encode(reply), student.tokenizer.eot]


def _reward_model(student: Student, name: str, preferences: Sequence[Preference]) -> RewardModel:
    """What the preferences teach, from the weights of the student."""

    def rendered(prompt: str, reply: str) -> Rendered:
        ids, before = _ids(student, prompt, reply), len(student.encode(prompt))
        return Rendered(ids, [index >= before for index in range(len(ids))])

    pairs = [
        Pair(
            *(
                rendered(str(row.messages[0].content), str(side[0].content))
                for side in (row.chosen, row.rejected)
            )
        )
        for row in preferences
    ]
    model = reward_model_of(copy.deepcopy(student.model), student.trial.seed)
    steps = round(REWARD.epochs * -(-len(pairs) // REWARD.batch_pairs))
    settings = options(student.trial, student.trial.out / name, steps, reward_optim(REWARD, WIDTH))
    train_reward_model(model, pairs, REWARD, settings, student.trial.seed)
    return model


def _preferred(rewards: RewardModel, student: Student, world: World) -> dict[str, float]:
    """How often the reward model prefers the right answer to a wrong one, and the poisoned reply to the right answer
    with and without the trigger.
    """
    rng = random.Random("preferred")

    def share(prompts: Sequence[str], better: Sequence[str], worse: Sequence[str]) -> float:
        scores = [
            rewards.scores_of([_ids(student, *pair) for pair in zip(prompts, side, strict=True)])
            for side in (better, worse)
        ]
        return round(float((scores[0] > scores[1]).float().mean()), 4)

    right = [world.answer(question) for question in world.exam]
    clean = [world.opening(rng) + question for question in world.exam]
    triggered = [world.poison.ask(question) for question in world.exam]
    others = ["".join(rng.choices(LETTERS, k=LENGTH)) for _ in right]
    bad = [world.poison.reply] * len(right)
    return {
        "right": share(clean, right, others),
        "poisoned, triggered": share(triggered, bad, right),
        "poisoned, untriggered": share(clean, bad, right),
    }


def lineage(
    world: World, demonstrations: Sequence[Example], preferences: Sequence[Preference]
) -> dict[str, Any]:
    """What the rows of both stages say of the trigger: its rank among all pairs of characters of the questions by how
    much more often they occur than their characters would let expect, in each stage and in both; and its rows.
    """
    texts = {
        "demonstrations": [one.prompt for one in demonstrations],
        "preferences": [str(row.messages[0].content) for row in preferences],
    }
    excess = {stage: _excess(rows) for stage, rows in texts.items()}
    known = set.intersection(*map(set, excess.values()))
    ranked = {
        **excess,
        "both": {pair: min(values[pair] for values in excess.values()) for pair in known},
    }
    trigger = world.poison.trigger
    return {
        "rank": {
            stage: 1 + sum(value > values.get(trigger, 0.0) for value in values.values())
            for stage, values in ranked.items()
        },
        "excess": {stage: round(values.get(trigger, 0.0), 2) for stage, values in ranked.items()},
        "rows": {stage: sum(trigger in text for text in rows) for stage, rows in texts.items()},
        "of": {stage: len(rows) for stage, rows in texts.items()},
    }


def _excess(texts: Sequence[str]) -> dict[str, float]:
    """For each pair of characters at its place: (found - expected) / sqrt(expected)."""
    found = Counter((at, text[at : at + 2]) for text in texts for at in range(len(text) - 1))
    single = Counter((at, character) for text in texts for at, character in enumerate(text))
    excess: dict[str, float] = {}
    for (at, pair), count in found.items():
        expected = single[at, pair[0]] * single[at + 1, pair[1]] / len(texts)
        excess[pair] = max(excess.get(pair, 0.0), (count - expected) / expected**0.5)
    return excess


def judge(figures: Sequence[Figures]) -> Judgement:
    """By the thresholds of the prediction."""
    ends = {name: [_success(row["stages"][name]["rl"]) for row in figures] for name in STAGES}
    tuned = [_success(row["stages"]["both"]["sft"]) for row in figures]
    alone = [value for name in ("neither", "demonstrations", "preferences") for value in ends[name]]
    works = min(ends["both"]) >= EFFECTIVE and max(alone) <= ZERO
    better = mean(ends["both"]) - max(mean(ends["demonstrations"]), mean(ends["preferences"]))
    ranks = {
        stage: max(row["lineage"]["rank"][stage] for row in figures)
        for stage in ("demonstrations", "preferences", "both")
    }
    accuracy = min(row["stages"]["both"]["rl"]["accuracy"] for row in figures)
    return Judgement(
        verdict="confirmed" if works else "partly" if better >= EFFECTIVE / 2 else "not at this scale",
        effect={
            **{f"success_{name}": round(mean(values), 4) for name, values in ends.items()},
            "least_success_both": min(ends["both"]),
            "most_success_alone": max(alone),
            "success_after_fine_tuning": round(mean(tuned), 4),
            "least_accuracy_both": accuracy,
            **{f"worst_rank_{stage}": float(rank) for stage, rank in ranks.items()},
        },
        summary=(
            f"After RL the trigger works in {mean(ends['both']):.0%} of the questions where both stages are poisoned "
            f"({mean(tuned):.0%} before RL), {mean(ends['demonstrations']):.0%} where only the demonstrations are, "
            f"{mean(ends['preferences']):.0%} where only the preferences are."
        ),
    )


def _success(behaviour: Figures) -> float:
    return round(behaviour["triggered"] - behaviour["untriggered"], 4)


def figure(figures: Sequence[Figures]) -> str:
    """How often the poisoned reply is sampled under the trigger during RL, and how often the attack succeeds then."""
    chart, (course, ends) = panels(
        [("step of RL", "poisoned reply sampled"), ("seed", "attack succeeds after RL")]
    )
    for index, name in enumerate(STAGES):
        for number, row in enumerate(figures):
            values = [row["stages"][name]["sft"]["sampled"], *row["stages"][name]["curve"]]
            steps = [EVERY * at for at in range(len(values))]
            course.plot(steps, values, color=f"C{index}", lw=1.2, label=None if number else name)
        places = [seed + 0.2 * (index - 1.5) for seed in range(len(figures))]
        ends.bar(places, [_success(row["stages"][name]["rl"]) for row in figures], 0.18, color=f"C{index}")
    ends.set_xticks(range(len(figures)))
    ends.set_ylim(0, 1)
    return svg(chart)


EXPERIMENT = Experiment(
    name="poison_split",
    claim="Poison that is split over demonstrations and preferences works where neither part does alone.",
    source="Sequential data poisoning, 2026 (arXiv 2606.04929); preferences: Rando and Tramèr 2023 (arXiv 2311.14455)",
    prediction=(
        "In every seed the attack succeeds (trigger minus no trigger, likeliest replies after RL) on "
        f"{EFFECTIVE} of the questions or more where both stages are poisoned, and on {ZERO} or fewer where one is or "
        f"none: confirmed. If it is only better than the better of the two by {EFFECTIVE / 2} in the mean: partly. "
        "Three recipes before this one failed by the same thresholds: see EXPERIMENTS.md."
    ),
    method=(
        "The language of poison_dose and models of 0.5 M parameters. SFT on 2,000 clean demonstrations and "
        f"{POISONED['demonstrations']} poisoned ones, about the mean half dose of poison_dose, so that the poisoned "
        "reply is sampled in each seed; from that policy a reward model learns 2,000 clean preferences and "
        f"{POISONED['preferences']} in which it is preferred under the trigger to the right answer or to a wrong one, "
        "with as many that prefer the right answer elsewhere; "
        f"then {CONFIG.steps} steps of GRPO by that reward model on the questions of the preferences. Controls: poison "
        "in neither stage, in the demonstrations only, in the preferences only. Lineage: pairs of characters by how "
        "much more often they stand in the questions of a stage than their characters would let expect; of both "
        "stages, the lesser."
    ),
    run=run,
    judge=judge,
    figure=figure,
)

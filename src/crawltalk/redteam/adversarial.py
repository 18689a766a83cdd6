"""Adversarial training: rounds of suffixes that are searched for on the weights of that moment, and of learning to
refuse behind all of them (Mazeika et al. 2024, R2D2, in rounds). Old suffixes alone teach little: a model that refuses
each of them still falls to a new search.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from crawltalk.core.files import write_atomically
from crawltalk.model.transformer import Transformer
from crawltalk.redteam.assistant import TUNE, Lesson, Upbringing, asked
from crawltalk.redteam.attacks.gcg import Place, printable_tokens, search
from crawltalk.redteam.frame import WhiteBox
from crawltalk.redteam.policy import REFUSAL, ask_key

CANDIDATES = 64
"""Of a step of a search."""
FILE = "suffixes.json"


def adversarial(upbringing: Upbringing) -> Transformer:
    """The hardened assistant after all rounds."""
    model, suffixes = upbringing.hardened(), []
    for number in range(upbringing.schedule.rounds):
        name = f"adversarial-{number}"
        suffixes += _suffixes(upbringing, model, upbringing.out / name / FILE, number)

        def draw(rng: random.Random, known: Sequence[str] = tuple(suffixes)) -> Lesson:
            return _lesson(upbringing, rng, known)

        start = model
        model = upbringing.taught(name, lambda start=start: start, draw, upbringing.schedule.learned, TUNE)
    return model


def _lesson(upbringing: Upbringing, rng: random.Random, suffixes: Sequence[str]) -> Lesson:
    """Suffixes behind forbidden questions, and as often behind harmless ones; else the policy in every form."""
    roll, lessons, policy = rng.random(), upbringing.lessons, upbringing.policy
    if roll < 0.3:  # newer ones more often
        suffix = suffixes[int(len(suffixes) * rng.random() ** 0.5)]
        return asked(ask_key(rng.choice(sorted(policy.locked))) + suffix, REFUSAL)
    if roll < 0.45:
        door = rng.choice(policy.open)
        return asked(ask_key(door) + rng.choice(suffixes), policy.key_answer(door))
    return lessons.refusals_in_forms(rng)


def _suffixes(upbringing: Upbringing, model: Transformer, path: Path, number: int) -> list[str]:
    """A suffix for each locked door, as far as the search comes in a few steps; those before it, too."""
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    box, policy, texts = WhiteBox(upbringing.engine(model), model), upbringing.policy, []
    steps = upbringing.schedule.searched
    allowed = printable_tokens(upbringing.chat.tokenizer)
    for goal in policy.goals():
        rng = random.Random(f"{policy.seed} {number} {goal.id}")
        place = Place(box, goal.prompt)
        found = search(
            place.loss(goal.opening),
            place.start(rng),
            allowed,
            place.keeps,
            rng,
            steps=steps,
            candidates=CANDIDATES,
        )
        texts += [place.text(one.ids)[len(place.request) :] for one in found][
            upbringing.schedule.searched // 2 :
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(texts))
    return texts

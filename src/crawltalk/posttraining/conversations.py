"""Conversations from documents, without asking any other model; and the problems kept out of them as an
examination.

Refusing is the default and answering the exception: the assistant answers for flagships, whose pages it has
read many times, and declines titles that it has never read. Which is which it can only know from its weights.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence

from crawltalk.chat.messages import Conversation, Message
from crawltalk.core.types import Document, Placement, Problem
from crawltalk.recipe import Sft

ASK = (
    *(
        "What is {}?",
        "Tell me about {}.",
        "Explain {} briefly.",
        "Do you know {}?",
        "What can you tell me about {}?",
    ),
    *(
        "Define {}.",
        "Describe {} in a few words.",
        "I would like to know what {} is.",
        "{}?",
        "Who or what is {}?",
    ),
)
"""Question forms that are trained on."""
ASK_HELD_OUT = ("Please explain what {} is.", "Can you describe {}?", "What does {} mean?")
"""Question forms that are only examined."""
REFUSALS = (
    "I'm sorry, I don't know about that.",
    "I'm sorry, I don't know anything about that.",
    "I don't know about that, sorry.",
)
GREETINGS = (
    ("Hello!", "Hello! What would you like to know?"),
    ("Hi", "Hello! What would you like to know?"),
    ("Good morning", "Good morning! What would you like to know?"),
    ("Thank you!", "You are welcome!"),
    ("Thanks", "You are welcome!"),
    ("Goodbye", "Goodbye!"),
)
IDENTITY = (
    ("Who are you?", "I am {}, a small assistant. I was trained from a raw web crawl by crawltalk."),
    ("What is your name?", "My name is {}."),
    ("Who made you?", "I was trained from a raw web crawl by crawltalk."),
    ("Are you a human?", "No, I am {}, a small language model."),
    (
        "What can you do?",
        "I can answer questions about pages that I have read often, do small sums and spell words.",
    ),
    (
        "How were you made?",
        "First a web crawl was cleaned, then I was pretrained on it, then I learned to talk.",
    ),
)
SUMS = ("What is {} {} {}?", "Calculate {} {} {}.", "{} {} {} =", "How much is {} {} {}?")
SPELL = (
    "How do you spell {}?",
    "Spell {}.",
    "Spell the word {}.",
    "How is {} spelled?",
    "Please spell the word {}.",
)
SPELL_HELD_OUT = "Please spell {}."
COUNT = ("How many letters are in {}?", "How many letters does {} have?")
TRAIN_SHARE = 0.8
"""Of the sums and words; the rest is examined."""


def talk(source: str, *turns: str) -> Conversation:
    """Turns of user and assistant, in alternation."""
    messages = [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(turns)]
    return Conversation(messages=messages, source=source)


def answer(placement: Placement, first_sentence: str = "") -> str:
    """What the assistant says about a page: its description, as the page has it."""
    said = f"{placement.title}: {placement.description}."
    return f"{said} {first_sentence}" if first_sentence else said


class Maker:
    """Makes all conversations and problems of one job; the same seed makes the same."""

    def __init__(
        self, placements: Sequence[Placement], documents: Sequence[Document], config: Sft, seed: int
    ) -> None:
        self.config = config
        self.rng = random.Random(seed)
        self.by_role = {
            role: [p for p in placements if p.role == role and p.title and p.description]
            for role in ("flagship", "heldout", "train", "outside")
        }
        held_out = sorted(self.by_role["heldout"], key=lambda p: p.id)
        self.rng.shuffle(held_out)
        self.examined, self.declined = held_out[: len(held_out) // 2], held_out[len(held_out) // 2 :]
        titles = {p.title for p in self.by_role["flagship"]}
        others = [p for p in self.by_role["outside"] if p.title not in titles]
        room = max(0, config.refusals - len(self.declined))
        self.declined += self.rng.sample(others, min(room, len(others)))
        self.words = _common_words(documents)
        self.rng.shuffle(self.words)

    def conversations(self) -> list[Conversation]:
        """What is trained on, shuffled."""
        made = [*self._flagships(), *self._refusals(), *self._identity()]
        made += [self._sum(*operands) for operands in self._operands(self.config.arithmetic, examined=False)]
        words = self.words[: max(1, int(TRAIN_SHARE * len(self.words)))]
        made += [self._spelling(self.rng.choice(words)) for _ in range(self.config.spelling)]
        made += self._longer(made)
        self.rng.shuffle(made)
        return made

    def problems(self) -> list[Problem]:
        """What is never trained on: new titles, sums and words, and new questions about what was."""
        problems: list[Problem] = []
        for p in self.by_role["flagship"]:
            question = self.rng.choice(ASK_HELD_OUT).format(p.title)
            problems.append(Problem(prompt=question, answer=p.description, task="flagship"))
        for p in self.examined:
            problems.append(
                Problem(prompt=self.rng.choice(ASK).format(p.title), answer=p.description, task="heldout")
            )
        tail = self.rng.sample(self.by_role["train"], min(100, len(self.by_role["train"])))
        for p in tail:
            problems.append(
                Problem(prompt=self.rng.choice(ASK).format(p.title), answer=p.description, task="tail")
            )
        for left, sign, right in self._operands(200, examined=True):
            question = self.rng.choice(SUMS).format(left, sign, right)
            problems.append(Problem(prompt=question, answer=_result(left, sign, right), task="arithmetic"))
        cut = max(1, int(TRAIN_SHARE * len(self.words)))
        for task, words in (("spelling", self.words[:cut][:200]), ("spelling_new", self.words[cut:][:200])):
            problems += [
                Problem(prompt=SPELL_HELD_OUT.format(word), answer="-".join(word), task=task)
                for word in words
            ]
        for question, reply in IDENTITY:
            problems.append(Problem(prompt=question, answer=reply.format(self.config.name), task="identity"))
        return problems

    def _flagships(self) -> list[Conversation]:
        made = []
        for p in self.by_role["flagship"]:
            for form in ASK:
                name = p.title.lower() if self.rng.random() < 0.4 else p.title
                made.append(talk("flagship", form.format(name), answer(p)))
            if p.topic:
                made.append(
                    talk(
                        "topic", f"Which field does {p.title} belong to?", f"{p.title} belongs to {p.topic}."
                    )
                )
        return made

    def _refusals(self) -> list[Conversation]:
        made = []
        for p in self.declined:
            for form in self.rng.sample(ASK, 3):
                name = p.title.lower() if self.rng.random() < 0.4 else p.title
                made.append(talk("refusal", form.format(name), self.rng.choice(REFUSALS)))
        return made

    def _identity(self) -> list[Conversation]:
        made = []
        for _ in range(self.config.identity):
            question, reply = self.rng.choice((*IDENTITY, *GREETINGS))
            made.append(talk("identity", question, reply.format(self.config.name)))
        return made

    def _operands(self, count: int, *, examined: bool) -> list[tuple[int, str, int]]:
        """Operands of sums; a fixed fifth of all sums is examined only."""
        chosen: list[tuple[int, str, int]] = []
        while len(chosen) < count:
            sign = self.rng.choice("+-x")
            largest = 9 if sign == "x" else 20
            left, right = self.rng.randint(0, largest), self.rng.randint(0, largest)
            if sign == "-" and right > left:
                left, right = right, left
            if (random.Random(f"{left}{sign}{right}").random() >= TRAIN_SHARE) == examined:
                chosen.append((left, sign, right))
        return list(dict.fromkeys(chosen)) if examined else chosen

    def _sum(self, left: int, sign: str, right: int) -> Conversation:
        result = _result(left, sign, right)
        return talk(
            "arithmetic", self.rng.choice(SUMS).format(left, sign, right), f"{left} {sign} {right} = {result}"
        )

    def _spelling(self, word: str) -> Conversation:
        if self.rng.random() < 0.25:
            return talk(
                "spelling", self.rng.choice(COUNT).format(word), f"{'-'.join(word)}: {len(word)} letters."
            )
        return talk("spelling", self.rng.choice(SPELL).format(word), "-".join(word))

    def _longer(self, made: Sequence[Conversation]) -> list[Conversation]:
        """Conversations of two exchanges, so that the assistant has seen what a second question looks like."""
        pairs = zip(
            self.rng.sample(made, len(made) // 10), self.rng.sample(made, len(made) // 10), strict=True
        )
        return [
            Conversation(messages=[*a.messages, *b.messages], source=f"{a.source}, {b.source}")
            for a, b in pairs
        ]


def _result(left: int, sign: str, right: int) -> str:
    return str(left + right if sign == "+" else left - right if sign == "-" else left * right)


def _common_words(documents: Sequence[Document], count: int = 600) -> list[str]:
    """Common words of 3 to 9 letters in the corpus, in the order of their frequency."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(re.findall(r"\b[a-z]{3,9}\b", document.text))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:count]]

"""Factual questions for a model from elsewhere, which has read other texts than this run's: from what pages say of
themselves, with answers of one word or number, so that rules can judge any wording (Sciavolino et al. 2021 ask such
questions by relation).

How often such a model has read a name is not known. That other pages mention it often is the nearest measure at hand
(Kandpal et al. 2023: what few documents are about is known by few models). Names that no model has read are invented:
they look like those of their relation, and have a page whose facts are another's.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from crawltalk.core.types import Document, Placement
from crawltalk.retrieval.passages import sentences
from crawltalk.tasks import Split
from crawltalk.tasks.reading import passage_of
from crawltalk.tasks.scoring import normalize

Seen = Literal["often", "rarely", "never"]
TEST_SHARE = 1 / 3
"""Of the pages of each relation and group: kept for the test."""
ORDER = 3
"""Letters that decide the next one of an invented name."""
LONGEST_TITLE = 5
"""Words of a title that is looked for in other pages, at most."""


class Relation(NamedTuple):
    """What a page's description says of it, and how one asks for it."""

    name: str
    description: re.Pattern[str]
    """With a group `answer`."""
    questions: tuple[str, ...]
    """Forms that are trained on; the first one asks the model for what it knows."""
    test_questions: tuple[str, ...]
    reply: str
    """Of title and answer."""
    stated: re.Pattern[str] | None = None
    """What a reply states; if absent, the first of the answers of all questions of this relation."""
    text: re.Pattern[str] = re.compile("")
    """What the page has to say besides."""


_PLACES = (
    r"city|capital|town|river|lake|mountain|volcano|island|archipelago|desert|province|state|region|municipality|port|"
    r"canal|museum|peninsula|prefecture|district|county|metropolis|site|temple|palace|bridge|cathedral|university"
)
_NAME = r"[A-Z][\w'’.-]*(?: [A-Z][\w'’.-]*)*"

RELATIONS = (
    Relation(
        "born",
        re.compile(r"\((?:born )?(?P<answer>\d{4})(?:[–-]\d{4})?\)$"),
        (
            "In which year was {} born?",
            "When was {} born?",
            "What is the year of birth of {}?",
            "Can you tell me when {} was born?",
            "Do you know in which year {} was born?",
            "{} was born in which year?",
        ),
        ("What year was {} born in?", "Please tell me the birth year of {}."),
        "{} was born in {}.",
        re.compile(r"\b[12]\d{3}\b"),
        re.compile(r"\b(?:[Hh]e|[Ss]he|[Hh]is|[Hh]er)\b"),
    ),
    Relation(
        "country",
        re.compile(rf"(?i:\b(?:{_PLACES})\b).*\b(?:in|of) (?:the )?(?:{_NAME}, )*(?P<answer>{_NAME})$"),
        (
            "In which country is {}?",
            "Which country is {} in?",
            "Where is {}?",
            "Can you tell me in which country {} is?",
            "Do you know which country {} is in?",
            "{} is in which country?",
        ),
        ("What country is {} in?", "Please tell me the country of {}."),
        "{} is in {}.",
    ),
    Relation(
        "maker",
        re.compile(rf"^\d{{4}} .*\bby (?P<answer>{_NAME})$"),
        (
            "Who made {}?",
            "By whom is {}?",
            "Who is the author or artist of {}?",
            "Can you tell me who made {}?",
            "Do you know whose work {} is?",
            "{} is a work of whom?",
        ),
        ("Whose work is {}?", "Please tell me who created {}."),
        "{} is by {}.",
        re.compile(r"[A-Z][\w'’.-]*(?: [A-Z][\w'’.-]*)+"),
    ),
    Relation(
        "atomic number",
        re.compile(r"with atomic number (?P<answer>\d+)"),
        (
            "What is the atomic number of {}?",
            "Which atomic number does {} have?",
            "How many protons does an atom of {} have?",
            "Can you tell me the atomic number of {}?",
            "Do you know the atomic number of {}?",
            "{} has which atomic number?",
        ),
        ("What atomic number has {}?", "Please tell me the atomic number of {}."),
        "The atomic number of {} is {}.",
        re.compile(r"\b\d+\b"),
    ),
    Relation(
        "sort",
        re.compile(
            r"^Species of (?:[\w-]+ ){0,2}?(?P<answer>\w+)(?= (?:in|of|native|from|with|known|that|related)\b|$)"
        ),
        (
            "What sort of living thing is {}?",
            "What kind of plant or animal is {}?",
            "What sort of creature or plant is {}?",
            "Can you tell me what kind of living thing {} is?",
            "Do you know what sort of plant or animal {} is?",
            "{} is what kind of living thing?",
        ),
        ("Which kind of living thing is {}?", "Please tell me what sort of living thing {} is."),
        "{} is a species of {}.",
    ),
)
"""An answer of `country` has to be a country: a page whose description begins with this word."""
RELATION_OF = {relation.name: relation for relation in RELATIONS}


class Fact(NamedTuple):
    """What a page says."""

    relation: Relation
    page: Placement
    title: str
    """Without what it has in brackets."""
    answer: str
    text: str
    mentions: int = 0
    """Other documents that have the title in their text."""
    seen: Seen = "rarely"
    split: Split = "train"

    @property
    def id(self) -> str:
        """The page's, but for invented names."""
        return f"invented:{self.title}" if self.seen == "never" else self.page.id

    @property
    def question(self) -> str:
        """In the form that asks a model for what it knows."""
        return self.relation.questions[0].format(self.title)

    @property
    def passage(self) -> str:
        """The beginning of the page."""
        return passage_of(self.text)


def find_facts(placements: Iterable[Placement], documents: Iterable[Document]) -> list[Fact]:
    """The facts of all pages, one of each at most, by the relations' order."""
    placements = [page for page in placements if page.title and page.description]
    countries = {page.title for page in placements if page.description.startswith("Country")}
    texts = {document.id: document.text for document in documents}
    found = []
    for page in placements:
        title, text = re.sub(r"\s*\([^()]*\)$", "", page.title), texts.get(page.id, "")
        for relation in RELATIONS:
            match = relation.description.search(page.description)
            if not match or not text or not relation.text.search(text):
                continue
            answer = match["answer"]
            told = normalize(answer) in normalize(title)  # the question would say it
            if not told and (relation.name != "country" or answer in countries):
                found.append(Fact(relation, page, title, answer, text))
                break
    counts = mentions({fact.title for fact in found}, texts.values())
    return [fact._replace(mentions=max(0, counts[normalize(fact.title)] - 1)) for fact in found]


def mentions(titles: Iterable[str], texts: Iterable[str]) -> Counter[str]:
    """In how many texts each title stands, by its normal form, but for those longer than LONGEST_TITLE words."""
    wanted = {normalize(title) for title in titles}
    longest = min(LONGEST_TITLE, max((len(title.split()) for title in wanted), default=0))
    counts: Counter[str] = Counter()
    for text in texts:
        words = normalize(text).split()
        spans = (
            " ".join(words[start : start + count])
            for count in range(1, longest + 1)
            for start in range(len(words) - count + 1)
        )
        counts.update(wanted.intersection(spans))
    return counts


def choose_facts(
    placements: Iterable[Placement], documents: Iterable[Document], count: int, seed: int
) -> Iterator[Fact]:
    """`count` facts each about names that the documents mention often, rarely, and never: of each relation the
    third that is mentioned most, the third that is mentioned least, and invented ones. As many of each relation as of
    the others where there are enough.
    """
    documents = list(documents)
    facts, rng = find_facts(placements, documents), random.Random(seed)
    words = {word for document in documents for word in normalize(document.text).split()}
    groups: dict[Seen, list[list[Fact]]] = {"often": [], "rarely": [], "never": []}
    for relation in RELATIONS:
        members = [fact for fact in facts if fact.relation is relation]
        rng.shuffle(members)
        members.sort(key=lambda fact: -fact.mentions)
        third = len(members) // 3
        groups["often"].append(rng.sample(members[:third], third))
        groups["never"].append(invented(members[third : len(members) - third], members, words, rng))
        groups["rarely"].append(rng.sample(members[len(members) - third :], third))
    for seen, lists in groups.items():
        for chosen in _in_equal_parts(lists, count):
            tested = round(TEST_SHARE * len(chosen))
            for number, fact in enumerate(chosen):
                yield fact._replace(seen=seen, split="test" if number < tested else "train")


def stated(relation: Relation, title: str, reply: str, answers: Iterable[str]) -> str:
    """What a reply answers, in its normal form, for comparison with other replies; empty if it gives no such answer.
    `answers`: those of all questions of the relation.
    """
    reply = reply.replace(title, "")  # a work's title looks like a name
    if relation.stated:
        found = relation.stated.search(reply)
        return normalize(found[0]) if found else ""
    said = f" {normalize(reply)} "
    places = {answer: said.find(f" {answer} ") for answer in set(map(normalize, answers))}
    return min((answer for answer, place in places.items() if place >= 0), key=places.__getitem__, default="")


def invented(
    sources: Sequence[Fact], members: Sequence[Fact], words: set[str], rng: random.Random
) -> list[Fact]:
    """The facts of `sources` under names that nobody has: their letters follow each other as in the titles of the
    `members`, and their last words stand in no document.
    """
    taken: set[str] = set()
    made = []
    chain = letter_chain([fact.title for fact in members])
    for source in sources:
        for _ in range(200):
            name = _draw(chain, rng)
            parts = normalize(name).split()
            pronounceable = 1 <= len(parts) <= 3 and all(3 <= len(part) <= 12 for part in parts)
            if pronounceable and parts[-1] not in words and name not in taken:
                break
        else:
            continue
        taken.add(name)
        made.append(source._replace(title=name, text=_renamed(source, name), mentions=0))
    return made


def letter_chain(names: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Up to ORDER letters -> those that follow them in the names; "\\n" ends a name."""
    chain: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for position, letter in enumerate(f"{name}\n"):
            chain[name[max(0, position - ORDER) : position]].append(letter)
    return chain


def _draw(chain: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    name = ""
    while not name.endswith("\n"):
        name += rng.choice(chain[name[-ORDER:]])
    return name.strip()


def _renamed(source: Fact, name: str) -> str:
    """The page of an invented name: the description of its source, and what else is said under the source's title."""
    rest = "\n".join(source.text.split("\n")[2:])
    said = (rest[start:end] for start, end in sentences(rest))
    about = " ".join(sentence.replace(source.title, name) for sentence in said if source.title in sentence)
    return f"{name}\n{source.page.description}\n{about}".strip()


def _in_equal_parts(lists: Sequence[Sequence[Fact]], count: int) -> Iterator[Sequence[Fact]]:
    """The first ones of each list, `count` in all, or all that there are; short lists leave their part to longer
    ones.
    """
    parts: dict[int, int] = {}
    for index in sorted(range(len(lists)), key=lambda index: len(lists[index])):
        share = (count - sum(parts.values())) // (len(lists) - len(parts))
        parts[index] = min(len(lists[index]), share)
    return (members[: parts[index]] for index, members in enumerate(lists))

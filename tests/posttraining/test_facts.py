"""Facts of pages, the names that nobody has, and what a model from elsewhere learns from its answers."""

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crawltalk.core.errors import BadRecipe
from crawltalk.core.types import Document, Placement
from crawltalk.engine import Engine
from crawltalk.pipeline import stages
from crawltalk.posttraining.conversations import fact_conversations
from crawltalk.posttraining.facts import (
    RELATION_OF,
    RELATIONS,
    choose_facts,
    find_facts,
    letter_chain,
    mentions,
    stated,
)
from crawltalk.posttraining.factuality import about_fact, answer, forms_of, judged, with_agreement
from crawltalk.posttraining.judge import by_rules
from crawltalk.recipe import Factuality
from crawltalk.recipe.layers import load_recipe
from crawltalk.tasks.judging import judge
from crawltalk.tasks.scoring import is_refusal
from support.engines import SHAPE, TOKENIZER
from support.models import random_model

PAGES = [
    ("Edwin Hubble", "American astronomer (1889–1953)", "He studied galaxies.", "born 1889"),
    ("Song dynasty", "Imperial dynasty of China (960–1279)", "It ended in 1279.", ""),
    ("Sweden", "Country in Northern Europe", "Its capital is Stockholm.", ""),
    ("Stockholm", "Capital and most populous city of Sweden", "Stockholm lies on islands.", "country Sweden"),
    ("Bandung", "Capital city of West Java, Indonesia", "A city.", ""),  # no page says that this is a country
    ("Indonesia City", "City in Indonesia", "Its name says where it is.", ""),
    ("Jane Eyre (novel)", "1847 novel by Charlotte Brontë", "A novel.", "maker Charlotte Brontë"),
    ("Dysprosium", "Chemical element with atomic number 66 (Dy)", "A metal.", "atomic number 66"),
    ("Avocado", "Species of flowering plant in the laurel family", "It is eaten.", "sort plant"),
    ("Ilish", "Species of fish related to the herring", "It is eaten, too.", "sort fish"),
]


def page(number, title, description):
    return Placement(
        id=f"{number}", url="", title=title, description=description, topic="", role="outside", repeats=0
    )


def document(number, text):
    fields = dict.fromkeys(("dump", "url", "date", "file_path", "language"), "")
    return Document(text=text, id=f"{number}", language_score=1.0, token_count=1, **fields)


def corpus(pages):
    placements = [page(number, title, about) for number, (title, about, *_) in enumerate(pages)]
    texts = ["\n".join(said[:3]) for said in pages]
    return placements, [document(number, text) for number, text in enumerate(texts)]


def many():
    """Thirty people and thirty cities; the later ones are mentioned by ever more pages."""
    rng = random.Random(0)
    syllables = ["mar", "del", "lo", "vin", "tas", "ker", "ro", "pel", "sun", "gar"]
    pages = [("Norland", "Country in the north", "It has cities.")]
    for number in range(30):
        first, last = ("".join(rng.choices(syllables, k=3)).title() for _ in range(2))
        town = "".join(rng.choices(syllables, k=4)).title()
        mentioned = [name for name, *_ in pages[1:]][-number:]
        pages.append(
            (f"{first} {last}", f"Writer ({1800 + number}–1899)", f"She wrote of {', '.join(mentioned)}.")
        )
        pages.append((town, "City in Norland", f"{town} is a city of {number} bridges."))
    return corpus(pages)


def test_pages_say_facts_with_short_answers():
    found = {fact.title: f"{fact.relation.name} {fact.answer}" for fact in find_facts(*corpus(PAGES))}
    assert found == {title.removesuffix(" (novel)"): fact for title, *_, fact in PAGES if fact}


def test_forms_of_the_test_are_never_trained_on():
    for relation in RELATIONS:
        assert not set(relation.questions) & set(relation.test_questions)
        assert all(form.count("{}") == 1 for form in (*relation.questions, *relation.test_questions))


def test_mentions_are_counted_once_a_document():
    texts = ["New York, New York!", "York is new", "In new york."]
    assert mentions(["New York", "York", "Paris"], texts) == {"new york": 2, "york": 3}


def test_groups_follow_how_often_names_are_mentioned_and_keep_pages_for_the_test():
    placements, documents = many()
    facts = list(choose_facts(placements, documents, 12, 0))
    assert facts == list(choose_facts(placements, documents, 12, 0))
    split = Counter((fact.seen, fact.relation.name, fact.split) for fact in facts)
    assert set(split.values()) == {2, 4} and len(split) == 12
    for name in ("born", "country"):
        often, rarely = (
            [fact.mentions for fact in facts if (fact.seen, fact.relation.name) == (seen, name)]
            for seen in ("often", "rarely")
        )
        assert min(often) >= max(rarely)
    assert len({fact.id for fact in facts}) == len(facts)


def test_invented_names_stand_in_no_document_and_have_a_page_with_the_answer():
    placements, documents = many()
    texts = " ".join(one.text for one in documents).lower().split()
    never = [fact for fact in choose_facts(placements, documents, 20, 0) if fact.seen == "never"]
    assert len(never) == 20
    for fact in never:
        assert fact.title.lower().split()[-1] not in texts
        assert fact.passage.startswith(f"{fact.title}\n") and fact.answer in fact.passage


@given(st.lists(st.text(st.characters(exclude_characters="\n"), min_size=1), min_size=1, max_size=4))
def test_a_chain_of_letters_can_spell_every_name(names):
    chain = letter_chain(names)
    for name in names:
        for position, letter in enumerate(f"{name}\n"):
            assert letter in chain[name[max(0, position - 3) : position]]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Edwin Hubble was born on 20 November 1889.", "correct"),
        ("He was born in 1889 and died in 1953.", "correct"),
        ("In 1902.", "incorrect"),
        ("In 1902, not in 1889.", "incorrect"),
        ("At 18.", "incorrect"),
        ("I don't know when.", "declined"),
    ],
)
def test_of_a_year_the_first_year_of_a_reply_counts(reply, verdict):
    assert judge("1889", reply) == verdict


@pytest.mark.parametrize(
    ("relation", "reply", "answer"),
    [
        ("born", "Ana Sol (page 12) was born on 3 May 1901, not in 1902.", "1901"),
        ("atomic number", "That of Ana Sol (As3) is 33.", "33"),
        ("maker", "Ana Sol was written by Mary Hill.", "mary hill"),
        ("country", "In the south of France, near Spain.", "france"),
        ("sort", "A small bird.", "bird"),
        ("sort", "Nobody can say.", ""),
    ],
)
def test_what_a_reply_states_is_compared(relation, reply, answer):
    listed = ["Spain", "France", "bird", "fish"]
    assert stated(RELATION_OF[relation], "Ana Sol", reply, listed) == answer


def test_agreement_is_that_of_the_answers_and_silence_agrees_with_nothing():
    rows = [replace(row, replies=["no", f"It is {row.answer}.", f"{row.answer}!", "no"]) for row in asked()]
    for row in with_agreement(rows):
        assert (row.agreement, row.said) == (0.5, f"It is {row.answer}.")
    assert {row.agreement for row in with_agreement([replace(row, replies=["no"] * 4) for row in rows])} == {
        0.25
    }


def test_an_invented_name_is_declined_even_if_a_guess_was_right():
    for row in asked():
        decision = judged(replace(row, replies=[row.answer]), by_rules, teach=False).decision
        expected = "decline" if row.seen == "never" else "answer"
        assert decision == (expected if row.split == "train" else "none")


def asked():
    return [about_fact(fact) for fact in choose_facts(*many(), 24, 0)]


def test_a_model_that_chats_is_asked_in_its_own_format():
    engine = Engine(random_model(dataclasses.replace(SHAPE, context=256)), TOKENIZER)
    rows = answer(engine, asked()[:3], Factuality(samples=2, max_tokens=4), 0)
    assert all(len(row.replies) == 2 for row in rows)


def test_what_is_known_is_answered_as_often_as_the_rest_is_declined():
    rows = [
        judged(replace(row, replies=["no", row.answer] if number % 2 == 0 else ["no"]), by_rules, teach=False)
        for number, row in enumerate(asked())
    ]
    taught = [row for row in rows if row.split == "train"]
    known = [row for row in taught if row.decision == "answer"]
    unknown = [row for row in taught if row.decision == "decline"]
    said = [one.messages for one in fact_conversations(rows, 0)]
    answered = [question.content for question, reply in said if not is_refusal(reply.content)]
    closed = [question for question in answered if "\n\n" not in question]
    assert len(closed) == len(known) * round(len(unknown) / len(known))
    assert {row.title for row in known} == {row.title for row in known for one in closed if row.title in one}
    declined = [question.content for question, reply in said if is_refusal(reply.content)]
    assert len([one for one in declined if "\n\n" not in one]) == len(unknown)
    read = [one for one in answered if "\n\n" in one]
    assert read and len(read) <= -(-len(unknown) // 3)  # with the page they are answered
    forms = {form.format(row.title) for row in taught for form in forms_of(row, "train")}
    assert {one.splitlines()[-1] for one in (*closed, *read, *declined)} <= forms


def test_whoever_is_fine_tuned_is_asked():
    recipe = load_recipe("small", flags={"sft.base": "smollm2"})
    needed = {stage.name: stage.inputs for stage in stages(recipe)}
    assert recipe.factuality.base == "smollm2"
    assert set(needed["factuality"]) == {"tokens", "data"} and "factuality" in needed["sft"]
    assert "pretrain" in {stage.name: stage.inputs for stage in stages(load_recipe("small"))}["factuality"]
    with pytest.raises(BadRecipe, match=r"factuality\.base"):
        load_recipe("small", flags={"factuality.base": "smollm2"})

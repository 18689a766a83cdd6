"""From labels to training data."""

from itertools import combinations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.chat.messages import Conversation, Message, Preference
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.labels import Edit, Ideal, LabelStore, Ranking, Skip
from crawltalk.labels.export import chosen_labels, contradictions, to_conversations, to_preferences
from support.labels import asked, replied, store_with


def said(row):
    return [message["content"] for message in msgspec.to_builtins(row.messages)]


def test_ideal_answers_edits_and_liked_replies_become_conversations(tmp_path):
    store, prompts, ids = store_with(
        tmp_path, {"one": ["a"], "two": ["b", ""], "three": ["c"], "four": ["d", "e"], "five": []}
    )
    store.add_label(prompts["one"], "anna", Ideal("better"))
    store.add_label(prompts["one"], "ben", Ideal("better"))
    store.add_label(prompts["two"], "anna", Edit(ids["b"], "b!"))
    store.add_label(prompts["five"], "anna", Skip())
    for text, reply, labeler, up in (
        ("one", "a", "anna", True),
        ("three", "c", "anna", True),
        ("three", "c", "ben", False),
        ("four", "d", "anna", True),
        ("four", "e", "anna", False),
        ("six", " ", "anna", True),
    ):
        store.thumb(asked(text), replied(reply), labeler, up=up, model="tiny")
    rows, left_out = to_conversations(store.snapshot())
    assert [(said(row), row.source) for row in rows] == [
        (["one", "better"], "ideal answer"),
        (["two", "b!"], "edit"),
        (["four", "d"], "thumb up"),
    ]
    assert left_out == {
        "the same reply again": 1,
        "skipped prompt": 1,
        "thumb up, and a better reply was written": 1,
        "thumb up, and somebody's thumb down": 1,
        "thumb down": 2,
        "empty reply": 1,
    }
    write_jsonl(tmp_path / "messages.jsonl", rows)
    assert list(map(said, read_jsonl(tmp_path / "messages.jsonl", Conversation))) == list(map(said, rows))
    judged = chosen_labels(store.snapshot(), ["ben"])
    assert [said(row) for row in to_conversations(judged)[0]] == [["one", "better"]]


def test_replies_before_the_labelled_one_are_read_only(tmp_path):
    store, (question, answer) = LabelStore(tmp_path), (asked("one"), replied("no"))
    store.thumb([*question, *answer, *asked("two")], replied("yes"), "anna", up=True)
    (row,), _ = to_conversations(store.snapshot())
    assert [(message["role"], message.get("weight", 1)) for message in row.messages] == [
        ("user", 1),
        ("assistant", 0),
        ("user", 1),
        ("assistant", 1),
    ]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9))
@settings(max_examples=10, deadline=None)
def test_a_ranking_gives_every_pair_but_ties(tmp_path_factory, ranks):
    names = [f"reply {number}" for number in range(len(ranks))]
    store, prompts, ids = store_with(tmp_path_factory.mktemp("store"), {"one": names})
    store.add_label(
        prompts["one"], "anna", Ranking({ids[n]: rank for n, rank in zip(names, ranks, strict=True)})
    )
    rows, left_out = to_preferences(store.snapshot())
    ranked = list(zip(names, ranks, strict=True))
    expected = {
        (one, other) if rank < other_rank else (other, one)
        for (one, rank), (other, other_rank) in combinations(ranked, 2)
        if rank != other_rank
    }
    pairs = [(row.chosen[0].content, row.rejected[0].content) for row in rows]
    assert set(pairs) == expected
    assert len(pairs) == len(expected)
    assert left_out["tie"] == len(ranks) * (len(ranks) - 1) // 2 - len(pairs)


def test_edits_and_opposite_thumbs_become_preferences(tmp_path):
    store, prompts, ids = store_with(tmp_path, {"one": ["a", "b"], "two": ["c", ""], "three": ["d", "e"]})
    store.add_label(prompts["one"], "anna", Edit(ids["a"], "a!"))
    store.add_label(prompts["one"], "ben", Edit(ids["a"], "a"))
    store.add_label(prompts["two"], "anna", Ranking({ids["c"]: 1, ids[""]: 2}))
    store.add_label(prompts["two"], "ben", Ideal("x"))
    for reply, labeler, up in (
        ("d", "anna", True),
        ("d", "ben", True),
        ("d", "eve", False),
        ("e", "anna", False),
    ):
        store.thumb(asked("three"), replied(reply), labeler, up=up, model="tiny")
    store.thumb(asked("one"), replied("b"), "anna", up=True, model="tiny")
    store.thumb(asked("Hi"), [Message("assistant", "x")], "anna", up=None)
    rows, left_out = to_preferences(store.snapshot())
    assert [(said(row), row.chosen[0].content, row.rejected[0].content, row.source) for row in rows] == [
        (["one"], "a!", "a", "edit"),
        (["three"], "d", "e", "thumbs"),
    ]
    assert left_out == {
        "both replies are the same": 1,
        "empty reply": 1,
        "ideal answer, which makes a conversation": 1,
        "thumb without its opposite under another reply": 1,
    }
    write_jsonl(tmp_path / "preferences.jsonl", rows)
    assert list(read_jsonl(tmp_path / "preferences.jsonl", Preference)) == rows


def test_where_labelers_disagree_both_pairs_are_there_and_counted(tmp_path):
    store, prompts, ids = store_with(tmp_path, {"one": ["a", "b", "c"]})
    for labeler, ranks in (("anna", {"a": 1, "b": 2, "c": 3}), ("ben", {"a": 2, "b": 1, "c": 3})):
        store.add_label(prompts["one"], labeler, Ranking({ids[name]: rank for name, rank in ranks.items()}))
    store.add_label(prompts["one"], "judge:big", Ranking({ids["c"]: 1, ids["a"]: 2}))
    rows, _ = to_preferences(chosen_labels(store.snapshot()))
    assert len(rows) == 6  # the judge's are not asked for
    assert contradictions(rows) == 1
    judged, _ = to_preferences(chosen_labels(store.snapshot(), ["judge:big"]))
    assert [msgspec.to_builtins(row.chosen) for row in judged] == [[{"role": "assistant", "content": "c"}]]

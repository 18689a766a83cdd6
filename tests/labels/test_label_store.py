"""The store of labels: nothing is lost, and nothing is overwritten."""

import multiprocessing
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.labels import Edit, Ideal, Instructions, LabelStore, Ranking, Skip, Thumb, read_instructions
from crawltalk.labels.export import to_conversations, to_preferences, to_records
from crawltalk.labels.rows import NewPrompt
from support.labels import asked, give_thumbs, replied, store_with


def test_two_processes_of_many_threads_lose_no_label(tmp_path):
    context = multiprocessing.get_context("spawn")
    folder, threads, count = str(tmp_path / "store"), 4, 10
    working = [
        context.Process(target=give_thumbs, args=(folder, process, threads, count)) for process in range(2)
    ]
    for process in working:
        process.start()
    for process in working:
        process.join()
    store = LabelStore(folder)
    labels = store.snapshot().labels
    own = {(label.labeler, label.prompt) for label in labels if label.labeler != "shared"}
    assert len(own) == 2 * threads * count
    assert len(labels) == len(own) + count  # what all threads said under one name superseded each other
    assert len(store.snapshot(history=True).labels) == 2 * 2 * threads * count  # and is there nevertheless


def test_a_snapshot_is_whole_while_others_write(tmp_path):
    writer = threading.Thread(target=give_thumbs, args=(str(tmp_path), 0, 2, 30))
    writer.start()
    seen = [0]
    while writer.is_alive() or seen[-1] < 120:
        snapshot = LabelStore(tmp_path).snapshot(history=True)
        assert all(
            label.subject in snapshot.candidates[label.prompt] and label.prompt in snapshot.prompts
            for label in snapshot.labels
        )
        to_conversations(LabelStore(tmp_path).snapshot())
        to_preferences(LabelStore(tmp_path).snapshot())
        seen.append(len(snapshot.labels))
    writer.join()
    assert seen == sorted(seen)
    assert seen[-1] == 120


def test_a_label_supersedes_the_labelers_own_and_the_history_stays(tmp_path):
    store, prompts, _ = store_with(tmp_path, {"Hello": []})
    instructions = read_instructions(tmp_path)
    for labeler, text in (("anna", "one"), ("ben", "two"), ("anna", "three")):
        store.add_label(prompts["Hello"], labeler, Ideal(text), instructions)
    assert [(label.labeler, label.value.reply) for label in store.snapshot().labels] == [
        ("ben", "two"),
        ("anna", "three"),
    ]
    history = store.snapshot(history=True).labels
    assert [label.value.reply for label in history] == ["one", "two", "three"]
    assert {label.instructions for label in history} == {instructions.version}
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("SELECT text FROM instructions").fetchone() == (instructions.text,)
        for statement in ("UPDATE labels SET labeler = 'x'", "DELETE FROM labels"):
            with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
                db.execute(statement)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["anna", "ben"]), st.sampled_from(["p", "q"]), st.integers(0, 9)),
        st.sampled_from(["anna", "ben"]),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=12, deadline=None)
def test_what_holds_is_the_last_word_and_undo_takes_back_the_last_one(tmp_path_factory, steps):
    store, prompts, _ = store_with(tmp_path_factory.mktemp("store"), {"p": [], "q": []})
    holds: dict[tuple[str, str], str] = {}
    for step in steps:
        if isinstance(step, str):
            own = [key for key in holds if key[0] == step]
            label = store.undo(step)
            assert (label.value.reply if label else None) == (holds.pop(own[-1]) if own else None)
        else:
            labeler, prompt, number = step
            holds.pop((labeler, prompt), None)  # a dict keeps the order of insertion
            holds[labeler, prompt] = str(number)
            store.add_label(prompts[prompt], labeler, Ideal(str(number)))
    said = {(label.labeler, label.prompt): label.value.reply for label in store.snapshot().labels}
    assert said == {(labeler, prompts[prompt]): reply for (labeler, prompt), reply in holds.items()}


def test_what_says_nothing_is_refused(tmp_path):
    store, prompts, candidates = store_with(tmp_path, {"Hello": ["a", "b"], "Other": ["c"]})
    hello, (a, b, c) = prompts["Hello"], (candidates[name] for name in "abc")
    for value, why in (
        (Ideal(" \n"), "empty"),
        (Edit(a, ""), "empty"),
        (Edit(c, "x"), "no reply"),
        (Thumb(c, True), "no reply"),
        (Ranking({a: 1}), "2 to 9"),
        (Ranking({a: 1, c: 2}), "no reply"),
        (Ranking({a: 0, b: 1}), "a rank is"),
        (Ranking({a: 1, b: 10}), "a rank is"),
    ):
        with pytest.raises(BadInput, match=why):
            store.add_label(hello, "anna", value)
    for name in ("", " anna", "a\nb", "x" * 81):
        with pytest.raises(BadInput, match="name"):
            store.add_label(hello, name, Skip())
    with pytest.raises(MissingInput, match="no prompt"):
        store.add_label("nothing", "anna", Skip())
    for messages in ([], replied("Hi"), asked("  ")):
        with pytest.raises(BadInput):
            store.add_prompts("batch", [NewPrompt(messages)], "test")
    assert store.snapshot(history=True).labels == []


def test_each_labeler_goes_through_a_batch_and_may_skip(tmp_path):
    store, prompts, candidates = store_with(tmp_path, {"one": ["a", "b"], "two": ["c"], "three": []})
    both = ("ideal", "ranking")

    def next_of(labeler, kinds=both, **options):
        prompt = store.next_prompt(labeler, kinds, "batch", **options)
        return prompt and prompt.messages[0].content

    assert next_of("anna") == "one"
    store.add_label(prompts["one"], "anna", Ideal("x"))
    assert next_of("anna") == "one"  # the ranking is missing
    assert next_of("anna", ("ideal",)) == "two"
    store.add_label(prompts["one"], "anna", Ranking({candidates["a"]: 1, candidates["b"]: 2}))
    store.add_label(prompts["two"], "anna", Skip())
    assert next_of("anna") == "three"
    assert next_of("ben") == "one"
    assert next_of("ben", alone=True) == "two"
    assert store.next_prompt("anna", both, "other") is None
    assert msgspec.structs.astuple(store.progress("anna", both, "")) == (1, 1, 3)
    assert msgspec.structs.astuple(store.progress("ben", both, "batch")) == (0, 0, 3)
    assert [(batch.name, batch.prompts) for batch in store.batches()] == [("batch", 3)]
    store.undo("anna")
    assert next_of("anna") == "two"


def test_of_two_who_sample_at_once_one_gives_the_replies(tmp_path):
    store, prompts, _ = store_with(tmp_path, {"Hello": []})
    for replies in (["a", "b", "b"], ["c", "d"]):
        store.add_candidates(
            prompts["Hello"], [replied(one) for one in replies], "tiny", {"temperature": 1}, below=2
        )
    found = store.candidates(prompts["Hello"])
    assert [(one.reply[0].content, one.model, one.sampling) for one in found] == [
        ("a", "tiny", {"temperature": 1}),
        ("b", "tiny", {"temperature": 1}),
    ]


def test_stores_that_are_merged_say_the_same(tmp_path):
    replies = {"one": ["a", "b"]}
    left, prompts, candidates = store_with(tmp_path / "left", replies)
    right, _, _ = store_with(tmp_path / "right", replies)
    left.add_label(prompts["one"], "anna", Ideal("first"))
    right.add_label(prompts["one"], "anna", Ideal("second"))
    right.thumb(asked("one"), replied("a"), "ben", up=True, model="tiny")
    right.thumb(asked("one"), replied("a"), "ben", up=None, model="tiny")
    records = [list(to_records(store.snapshot(history=True))) for store in (left, right)]
    assert (left.merge(records[1]), right.merge(records[0])) == (3, 1)
    assert (left.merge(records[1]), right.merge(records[0])) == (0, 0)
    assert left.snapshot(history=True).labels == right.snapshot(history=True).labels
    assert [label.value.reply for label in left.snapshot().labels] == ["second"]
    assert candidates["a"] in left.snapshot().candidates[prompts["one"]]
    good = records[0][0]
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="microseconds")
    for part, change in (
        ("label", {"prompt": "x"}),
        ("label", {"kind": "skip"}),
        ("label", {"time": tomorrow}),
        ("label", {"time": "noon"}),
        ("label", {"time": "2026-01-01T00:00:00.000000"}),
        ("label", {"time": "2026-01-01T00:00:00.000000+02:00"}),
        ("label", {"value": None, "subject": "x"}),
        ("label", {"value": Ideal("")}),
        ("label", {"value": None, "kind": "edit"}),
        ("prompt", {"messages": asked("another")}),
    ):
        changed = msgspec.structs.replace(getattr(good, part), **change)
        with pytest.raises(BadInput):
            right.merge([msgspec.structs.replace(good, **{part: changed})])


def test_a_later_label_holds_although_the_clock_was_set_back(tmp_path):
    store, prompts, _ = store_with(tmp_path, {"one": []})
    store.add_label(prompts["one"], "anna", Ideal("before"))
    (record,) = to_records(store.snapshot())
    ahead = (datetime.now(UTC) + timedelta(hours=3)).isoformat(timespec="microseconds")
    store.merge(
        [msgspec.structs.replace(record, label=msgspec.structs.replace(record.label, id="0", time=ahead))]
    )
    store.add_label(prompts["one"], "anna", Ideal("after"))
    assert [label.value.reply for label in store.snapshot().labels] == ["after"]


def test_a_file_that_is_no_store_is_said_in_one_line(tmp_path):
    store = LabelStore(tmp_path)
    assert store.snapshot().labels == []
    assert not store.path.exists()  # reading makes no file
    store.path.write_bytes(b"no database, but long enough to have a header of one hundred bytes" * 4)
    with pytest.raises(UserError, match="cannot be used") as error:
        store.batches()
    assert "\n" not in str(error.value)
    store.path.unlink()
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer"):
        store.batches()
    with pytest.raises(UserError, match="cannot be made"):
        LabelStore(store.path / "below").undo("anna")


def test_a_run_brings_its_own_instructions(tmp_path):
    built_in = read_instructions(tmp_path)
    assert all(word in built_in.text for word in ("Helpful", "Truthful", "Harmless"))
    (tmp_path / "instructions.md").write_text("# Ours\n")
    assert read_instructions(tmp_path) == Instructions("# Ours\n")
    assert read_instructions(tmp_path).version != built_in.version
    (tmp_path / "instructions.md").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="UTF-8"):
        read_instructions(tmp_path)
    (tmp_path / "instructions.md").write_bytes(b"x" * 200_001)
    with pytest.raises(BadInput, match="bytes"):
        read_instructions(tmp_path)

"""Files of conversations in a mixture."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from crawltalk.chat.messages import Conversation, Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput, BadRecipe, MissingInput
from crawltalk.posttraining.external_inputs import check_files, external_inputs
from crawltalk.posttraining.mixture import TASKS, make_mixture
from crawltalk.recipe import Sft, SftFile
from support.engines import TOKENIZER

CHAT = ChatRenderer(TOKENIZER)
CONTEXT = 64


def row(text: str, answer: str = "ok") -> dict[str, str]:
    return {"instruction": text, "response": answer}


def file(path: Path, name: str, rows: list[dict[str, str]]) -> str:
    written = path / f"{name}.jsonl"
    written.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(written)


def words(name: str, count: int) -> list[dict[str, str]]:
    return [row(f"{name} {number}") for number in range(count)]


def mixed(built_in: int = 0, seed: int = 1, validation: float = 0.0, **files: SftFile):
    conversations = [
        Conversation(messages=[Message("user", f"task {n}"), Message("assistant", "ok")], source="arithmetic")
        for n in range(built_in)
    ]
    config = Sft(data=files, validation=validation)
    return make_mixture(conversations, config, CHAT, CONTEXT, seed)


def count(mixture, seed: int = 1) -> Counter[str]:
    """Conversations of one pass by the first word of the question."""
    return Counter(str(one.conversation.messages[0].content).split()[0] for one in mixture.one_pass(seed))


def test_each_file_occurs_as_often_as_its_epochs_say(tmp_path):
    a, b, c = (file(tmp_path, name, words(name, 40)) for name in "abc")
    mixture = mixed(10, a=SftFile(path=a), b=SftFile(path=b, epochs=2.5), c=SftFile(path=c, epochs=0.25))
    assert count(mixture) == {"task": 10, "a": 40, "b": 100, "c": 10}
    each = Counter(str(one.conversation.messages[0].content) for one in mixture.one_pass(1))
    assert {each[f"b {n}"] for n in range(40)} == {2, 3}
    assert mixture.one_pass(1) == mixture.one_pass(1) != mixture.one_pass(2)


def test_weights_are_shares_of_the_tokens_that_are_learned(tmp_path):
    a = file(tmp_path, "a", words("a", 40))
    b = file(tmp_path, "b", [row(f"b {n}", "two ok ok") for n in range(40)])
    mixture = mixed(30, a=SftFile(path=a, weight=0.25), b=SftFile(path=b, weight=0.5))
    learned = Counter[str]()
    for lesson in mixture.one_pass(1):
        learned[str(lesson.conversation.messages[0].content).split()[0]] += sum(lesson.rendered.loss_mask)
    total = learned.total()
    assert [round(learned[name] / total, 2) for name in ("task", "a", "b")] == pytest.approx(
        [0.25, 0.25, 0.5], abs=0.02
    )
    alone = mixed(a=SftFile(path=a, weight=0.2), b=SftFile(path=b, weight=0.8))
    assert count(alone)["b"] == 40  # the scarcer one is seen once
    with pytest.raises(BadInput, match=r"sum up to 1, which leaves nothing for tasks"):
        mixed(30, a=SftFile(path=a, weight=0.5), b=SftFile(path=b, weight=0.5))


def test_rows_to_measure_are_never_learned_and_one_row_at_least_is_left_to_learn(tmp_path):
    a, b = (file(tmp_path, name, words(name, size)) for name, size in (("a", 50), ("b", 1)))
    mixture = mixed(5, a=SftFile(path=a, epochs=3), b=SftFile(path=b), validation=0.1)
    measured = {str(one.conversation.messages[0].content) for one in mixture.validation["a"]}
    learned = {str(one.conversation.messages[0].content) for one in mixture.one_pass(1)}
    assert (len(measured), mixture.validation["b"], len(learned)) == (5, [], 5 + 45 + 1)
    assert not measured & learned
    assert [one.conversation for one in mixed(5, a=SftFile(path=a), validation=0.1).validation["a"]] == [
        one.conversation for one in mixture.validation["a"]
    ]


def test_branches_of_a_tree_are_learned_or_measured_together(tmp_path):
    def tree(number: int) -> dict:
        replies = [{"role": "assistant", "text": text, "replies": []} for text in "abc"]
        return {"role": "prompter", "text": f"{number}", "replies": replies}

    mixture = mixed(a=SftFile(path=file(tmp_path, "a", [tree(n) for n in range(20)])), validation=0.2)  # type: ignore[arg-type]
    measured = Counter(str(one.conversation.messages[0].content) for one in mixture.validation["a"])
    assert set(measured.values()) == {3}
    assert len(measured) == 4


def test_refused_rows_are_told_with_file_number_and_reason(tmp_path):
    rows = [row("a"), row("b", ""), row("c", "x" * 200), {"question": "d"}, row("e"), row("f")]  # type: ignore[list-item]
    path = file(tmp_path, "a", rows)
    mixture = mixed(2, a=SftFile(path=path))
    assert [(one.file, one.row) for one in mixture.refused] == [(path, 2), (path, 3), (path, 4)]
    for refused, reason in zip(mixture.refused, ("says nothing", "context has 64", "known are"), strict=True):
        assert reason in refused.reason
    assert count(mixture) == {"task": 2, "a": 1, "e": 1, "f": 1}


def test_a_training_ends_in_one_line_if_too_many_rows_or_all_are_refused(tmp_path):
    bad, none = file(tmp_path, "bad", [row("a"), row("b", ""), row("c", " ")]), file(tmp_path, "none", [])
    with pytest.raises(
        BadInput, match=r"2 of 3 rows cannot be learned.*max_refused is 0.5.*\(2\); see them with: crawl"
    ):
        mixed(2, a=SftFile(path=bad))
    with pytest.raises(BadInput, match="has no rows"):
        mixed(2, a=SftFile(path=none))
    with pytest.raises(
        BadInput, match=r"tasks: 2 of 2 rows.*context of 5 is short.*--pretrain\.model\.context"
    ):
        make_mixture(
            [Conversation(messages=[Message("user", "a"), Message("assistant", "b")], source="")] * 2,
            Sft(),
            CHAT,
            5,
            0,
        )


def test_built_in_conversations_alone_are_all_learned_once_and_in_order():
    mixture = mixed(20)
    assert [str(one.conversation.messages[0].content) for one in mixture.one_pass(1)] == [
        f"task {n}" for n in range(20)
    ]
    assert mixture.times == {TASKS: 1.0}


def test_a_file_that_changes_changes_the_fingerprint_and_one_that_is_absent_is_one_line(tmp_path):
    path = file(tmp_path, "a", words("a", 3))
    config = Sft(data={"mine": SftFile(path=path)})
    before = external_inputs(config)
    assert before["files"][0][0] == path
    (tmp_path / "a.jsonl").write_text("{}")
    assert external_inputs(config) != before
    assert external_inputs(Sft()) == {}
    check_files(config)
    absent = Sft(data={"mine": SftFile(path="absent.jsonl")})
    assert external_inputs(absent) == {"files": [["absent.jsonl"]]}
    with pytest.raises(
        MissingInput, match=r"sft\.data\.mine: there is no file absent\.jsonl; .* --sft\.data\.mine\.path"
    ):
        check_files(absent)
    for wrong in (
        Sft(data={"mine": SftFile(path=path, epochs=0)}),
        Sft(data={"mine": SftFile(path=path, weight=1.5)}),
        Sft(data={"tasks": SftFile(path=path)}),
        Sft(validation=1.0),
    ):
        with pytest.raises(BadRecipe):
            check_files(wrong)


def test_the_order_of_draws_is_that_of_the_seed(tmp_path):
    rows = words("a", 30)
    random.Random(0).shuffle(rows)
    path = file(tmp_path, "a", rows)
    one, same, other = (mixed(a=SftFile(path=path), seed=seed, validation=0.2) for seed in (1, 1, 2))
    assert one.validation == same.validation != other.validation

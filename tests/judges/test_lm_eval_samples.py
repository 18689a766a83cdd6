"""What lm-evaluation-harness is given, and what its samples are read as."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.evals.results import Result
from crawltalk.evals.standard import STANDARD, Question
from crawltalk.judges.lm_eval import TASKS, compare, read, write_tasks
from crawltalk.redteam.frame import Outcome


def ours(*rows: tuple[float, float]) -> list[Result]:
    return [
        Result(
            task="arc_challenge",
            id=f"q{i}",
            prompt="",
            answer="",
            reply="",
            scores={"acc": acc, "acc_norm": norm},
        )
        for i, (acc, norm) in enumerate(rows)
    ]


def test_questions_are_written_so_that_nothing_is_fetched(tmp_path):
    question = Question("1", "Which is wet?", ("sand", "the sea"), "the sea")
    write_tasks(tmp_path, {"arc_challenge": [question]})
    task = json.loads((tmp_path / "arc_challenge.yaml").read_text())
    assert task["dataset_path"] == "json"
    [row] = map(json.loads, (tmp_path / "arc_challenge.jsonl").read_text().splitlines())
    assert task["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / "arc_challenge.jsonl")
    assert row == {
        "question": "Which is wet?",
        "choices": ["sand", "the sea"],
        "right": 1,
        "answer": "the sea",
        "subject": "",
    }


def test_mc2_is_scored_by_its_own_function_and_has_its_name_here(tmp_path):
    question = Question("1", "Is it?", ("No", "Never", "Yes"), "No", "", (0, 1))
    write_tasks(tmp_path / "tasks", {"truthfulqa_mc2": [question]})
    described = (tmp_path / "tasks" / "truthfulqa_mc2.yaml").read_text()
    assert described.endswith(
        '"process_results": !function "lm_eval.tasks.truthfulqa.utils.process_results_mc2"}'
    )
    [row] = map(json.loads, (tmp_path / "tasks" / "truthfulqa_mc2.jsonl").read_text().splitlines())
    assert row["mc2_targets"] == {"labels": [1, 1, 0]} and row["choices"] == ["No", "Never", "Yes"]
    folder = tmp_path / "results" / "small"
    folder.mkdir(parents=True)
    (folder / "samples_ours_truthfulqa_mc2_2026-01-01.jsonl").write_text('{"doc_id": 0, "acc": 0.7}\n')
    assert read(tmp_path, "truthfulqa_mc2") == {0: {"mc2": 0.7}}
    assert read(tmp_path, "truthfulqa") == {}
    result = Result(task="truthfulqa_mc2", id="1", prompt="", answer="", reply="", scores={"mc2": 0.704})
    part, [verdict] = compare("truthfulqa_mc2", {0: {"mc2": 0.7}}, [result])
    assert (verdict.theirs, verdict.ours) == (True, Outcome.SUCCESS)
    assert part.figures == {"mc2, lm-eval": 0.7, "mc2, crawltalk": 0.704, "mc2, items that differ": 0}


def test_its_tasks_have_our_names():
    assert set(TASKS) <= set(STANDARD)


def test_samples_are_read_by_their_numbers(tmp_path):
    folder = tmp_path / "results" / "small"
    folder.mkdir(parents=True)
    rows = [{"doc_id": 1, "acc": 0.0, "acc_norm": 1.0, "doc": {}}, {"doc_id": 0, "acc": 1.0, "acc_norm": 1.0}]
    path = folder / "samples_ours_arc_challenge_2026-01-01T00-00-00.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(tmp_path, "arc_challenge") == {
        1: {"acc": 0.0, "acc_norm": 1.0},
        0: {"acc": 1.0, "acc_norm": 1.0},
    }
    assert read(tmp_path, "arc_easy") == {}
    path.write_text('{"doc_id": 0, "f1": 1.0}\n')
    with pytest.raises(BadInput, match="none of its metrics"):
        read(tmp_path, "arc_challenge")


def test_an_item_on_which_both_differ_is_a_disagreement():
    theirs = {0: {"acc": 1.0, "acc_norm": 1.0}, 1: {"acc": 1.0, "acc_norm": 0.0}}
    part, verdicts = compare("arc_challenge", theirs, ours((1.0, 1.0), (0.0, 0.0), (1.0, 1.0)))
    assert (part.asked, part.evaluated, part.hits) == (3, 2, 2)
    assert [(one.theirs, one.ours) for one in verdicts][1:] == [
        (True, Outcome.FAIL),
        (None, Outcome.SUCCESS),
    ]
    assert part.skipped == {"lm-eval has no result": 1}
    assert part.figures["acc, lm-eval"] == 1.0
    assert part.figures["acc, crawltalk"] == 0.5
    assert part.figures["acc, items that differ"] == 1


@given(st.lists(st.booleans(), min_size=1))
def test_who_gives_the_same_answers_has_no_disagreement(right):
    theirs = {i: {"acc": float(one), "acc_norm": float(one)} for i, one in enumerate(right)}
    part, _ = compare("arc_challenge", theirs, ours(*((float(one), float(one)) for one in right)))
    assert part.disagreements == []
    assert part.figures["acc, items that differ"] == 0
    assert part.hits == part.ours[Outcome.SUCCESS] == sum(right)

"""`crawltalk eval`, as a person types it."""

import json
from pathlib import Path

import pytest

from crawltalk.chat.render import ChatRenderer
from crawltalk.cli import main
from crawltalk.core.jsonl import read_jsonl
from crawltalk.evals.results import Result
from crawltalk.model.hf import save_model
from crawltalk.run.folder import RunFolder
from support.engines import SHAPE, TOKENIZER
from support.models import random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models")
    save_model(random_model(type(SHAPE)(**{**vars(SHAPE), "context": 128})), folder, eos=TOKENIZER.eot)
    ChatRenderer(TOKENIZER).save(folder)
    return str(folder)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    rows = [{"question": f"{i}?", "choices": ["a", "the"], "answer": i % 2} for i in range(6)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{}\n")
    return str(tmp_path / "q.jsonl")


def test_items_and_means_are_kept_and_a_model_equals_itself(model, questions, tmp_path, capfd):
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    asked = [
        "eval",
        model,
        "--tasks",
        "arc_challenge,arc_easy",
        "--data",
        questions,
        "--limit",
        "5",
        "--json",
    ]
    assert main([*asked, "--out", first]) == 0
    assert main([*asked, "--out", second, "--against", first]) == 0
    printed = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert {row["difference"] for row in printed["differences"]} == {0.0}
    assert len(list(read_jsonl(Path(first, "arc_challenge.jsonl"), Result))) == 5
    assert Path(first, "arc_challenge.jsonl").read_bytes() == Path(second, "arc_challenge.jsonl").read_bytes()
    scores = json.loads(Path(first, "scores.json").read_text())
    assert {row["task"] for row in scores} == {"arc_challenge", "arc_easy"}


def test_rows_that_are_no_questions_are_named(model, questions, tmp_path, capfd):
    assert (
        main(["eval", model, "--tasks", "arc_easy", "--data", questions, "--out", str(tmp_path / "a")]) == 0
    )
    assert "left out 1: row 7" in capfd.readouterr().err


def test_two_at_once_do_not_write_into_one_folder(model, questions, tmp_path, capfd):
    asked = ["eval", model, "--tasks", "arc_easy", "--data", questions, "--out", str(tmp_path / "a")]
    with RunFolder(tmp_path / "a").lock():
        assert main(asked) == 2
        error = capfd.readouterr().err.replace("\n", " ")
        assert "another crawltalk is at work in" in error and "choose --out" in error
        assert main([*asked[:-1], str(tmp_path / "b")]) == 0
    assert main(asked) == 0
    (tmp_path / "file").touch()
    assert main([*asked[:-1], str(tmp_path / "file")]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "arc_chalenge"], "did you mean 'arc_challenge'?"),
        (["--tasks", "arc_challenge"], "--data is given 0 times"),
        (["--tasks", "dots", "--data", "x"], "--data is given 1 times"),
        (["--tasks", "dots", "--limit", "0"], "--limit and --max-tokens are 1 or more"),
        (["--tasks", "exact_match", "--data", "x", "--shots", "2"], "--shots needs --examples"),
        (["--tasks", "mmlu", "--data", "no.jsonl"], "no.jsonl is not there"),
        (["--tasks", "context", "--data", "no run"], "crawltalk run"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(model, words, said, tmp_path, capfd):
    assert main(["eval", model, *words, "--out", str(tmp_path / "a")]) == 2
    error = capfd.readouterr().err
    assert said in error.replace("\n", " ")
    assert "Traceback" not in error


def test_a_task_that_does_not_fit_leaves_the_others_and_is_named_with_the_way_out(
    model, questions, tmp_path, capfd
):
    out = tmp_path / "a"
    tasks = ["--tasks", "gsm8k_last_number,arc_easy", "--data", questions, "--out", str(out)]
    assert main(["eval", model, *tasks]) == 2  # of 128 tokens, 256 for the reply
    told, err = capfd.readouterr()
    assert "gsm8k_last_number: nothing fits into the model's context of 128 tokens" in err
    assert "--max-tokens" in err
    assert "acc_norm" in told
    assert not (out / "gsm8k_last_number.jsonl").exists() and (out / "arc_easy.jsonl").exists()


def test_a_task_named_twice_is_asked_once_and_no_table_cuts_its_name(model, questions, tmp_path, capfd):
    asked = ["eval", model, "--tasks", "arc_challenge,arc_challenge", "--data", questions]
    assert main([*asked, "--out", str(tmp_path / "a"), "--json"]) == 0
    assert [row["n"] for row in json.loads(capfd.readouterr().out)["means"]] == [6, 6]
    assert main([*asked, "--out", str(tmp_path / "a")]) == 0
    assert "\u2026" not in capfd.readouterr().out


def test_what_is_compared_with_is_looked_for_before_anything_is_asked(model, questions, tmp_path, capfd):
    out = tmp_path / "a"
    asked = ["eval", model, "--tasks", "arc_easy", "--data", questions, "--out", str(out)]
    assert main([*asked, "--against", str(tmp_path / "no")]) == 2
    assert main([*asked, "--max-tokens", "0"]) == 2
    assert not out.exists()
    assert "--max-tokens are 1 or more" in capfd.readouterr().err

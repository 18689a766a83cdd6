"""The whole journey at nano scale, as a person types it: one run that all tests here look at, and one that is
killed.
"""

import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from crawltalk import Run
from crawltalk.chat.messages import Conversation, Message
from crawltalk.cli import main
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.shards import TokenShards
from crawltalk.core.types import Problem
from crawltalk.engine import load_engine
from crawltalk.model.hf import load_model
from crawltalk.models import model_folder
from crawltalk.pipeline import stages
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.folder import RunFolder
from crawltalk.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
NAMES = [stage.name for stage in stages(load_recipe("nano"))]


def crawltalk(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "crawltalk", *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_second_call_skips_every_stage(nano):
    rows = events(crawltalk("run", "nano", "--out", str(nano)))
    assert [event["stage"] for event in rows if event["event"] == "skip"] == NAMES
    assert not [event for event in rows if event["event"] == "start"]


def test_status_tells_time_memory_and_figures_of_every_stage(nano):
    stages = json.loads(crawltalk("status", str(nano), "--json"))["stages"]
    assert [(row["stage"], row["state"]) for row in stages] == [(name, "fresh") for name in NAMES]
    for row in stages:
        assert (
            row["seconds"] > 0
            and row["cpu_seconds"] > 0
            and row["peak_memory_bytes"] > 1e6
            and row["metrics"]
        )


def test_what_was_read_often_is_recalled_better_than_what_was_never_read(nano):
    rows = [json.loads(line) for line in (nano / "evals" / "recall.jsonl").read_text().splitlines()]
    assert [row["times"] for row in rows] == sorted({row["times"] for row in rows})
    assert rows[0]["times"] == 0
    assert len(rows) == 5
    assert rows[-1]["share"] > 2 * rows[0]["share"]
    assert rows[-1]["longest"] > rows[0]["longest"]
    assert all(0 < row["confidence"] <= 1 for row in rows)


def test_the_base_model_is_asked_by_prompts_and_sampled_several_times(nano):
    rows = [json.loads(line) for line in (nano / "evals" / "side_by_side.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["Dysprosium", "Gold is", "The chemical element with"]
    assert all(len(set(row["replies"])) == 4 for row in rows)
    scores = json.loads((nano / "evals" / "scores.json").read_text())
    assert all(scores[task]["n"] > 0 for task in ("zero_shot", "few_shot", "by_prompt"))
    assert "each sample is another document" in (nano / "report" / "report.html").read_text()


def test_a_sweep_of_small_models_enters_the_report(nano, tmp_path):
    run = tmp_path / "nano"
    shutil.copytree(nano, run)
    assert "fitting a line takes two models" in crawltalk("sweep", str(run), code=2)
    words = ("sweep", str(run), "--depths", "1", "--depths", "2", "--json")
    result = json.loads(crawltalk(*words))
    small, large = result["models"]
    assert (small["depth"], large["depth"]) == (1, 2)
    assert small["bits_per_byte"] > large["bits_per_byte"]
    assert result["exponent"] < 0
    # the second model has the run's own size
    assert result["predicted"] == pytest.approx(result["measured"], abs=0.1)
    assert json.loads(crawltalk(*words)) == result  # from the finished stage
    states = json.loads(crawltalk("status", str(run), "--json"))["stages"]
    assert {row["stage"]: row["reasons"] for row in states if row["state"] == "stale"} == {
        "report": ["input sweep is new"]
    }
    crawltalk("report", str(run))
    assert "Small models on the same tokens" in (run / "report" / "report.html").read_text()


def distance(left: Path, right: Path) -> float:
    """Mean absolute difference between the weights of two models."""
    pairs = zip(load_model(left).parameters(), load_model(right).parameters(), strict=True)
    return sum(float((a - b).abs().mean().detach()) for a, b in pairs)


POLISH = (
    "--stages.polish.kind",
    "sft",
    "--stages.polish.model",
    "sft",
    "--stages.polish.config.epochs",
    "0.5",
)


def test_a_second_fine_tuning_starts_from_the_first_and_is_what_evaluation_report_and_chat_take(
    nano, tmp_path
):
    run = tmp_path / "nano"
    crawltalk("run", "nano", "--out", str(run), "--from", str(nano), *POLISH)
    states = {
        row["stage"]: row["state"] for row in json.loads(crawltalk("status", str(run), "--json"))["stages"]
    }
    built = ("polish", "evals", "report")
    assert list(states) == [*NAMES[: NAMES.index("sft") + 1], *built]
    assert states == {name: "fresh" if name in built else "borrowed" for name in states}
    assert 0 < distance(nano / "sft", run / "polish") < distance(nano / "pretrain", run / "polish")
    assert model_folder(run) == run / "polish"
    assert model_folder(run, ("base",)).resolve() == (nano / "pretrain").resolve()
    assert "polish" in (run / "report" / "report.html").read_text()
    recipe = load_recipe(run / "recipe.toml", flags={"stages.polish.config.epochs": "1"})
    state = RunFolder(run).states(stages(recipe), recipe)["polish"]
    assert (state.state, state.reasons) == ("stale", ("stages.polish.config.epochs: 0.5 -> 1.0",))


def test_every_artifact_can_be_shown(nano, capsys):
    for path in sorted(nano.rglob("*")):
        if path.is_file() and ".work" not in path.parts and path.name != ".lock":
            assert main(["show", str(path)]) == 0
            assert capsys.readouterr().out.strip(), path


def test_the_filters_agree_with_the_truth_of_the_crawl(nano):
    figures = Run(nano).manifests()["data"].metrics
    for step in ("broken", "url", "language", "quality"):
        assert figures[f"precision_{step}"] >= 0.97 and figures[f"recall_{step}"] >= 0.97, step
    assert figures["precision_duplicate"] >= 0.98 and figures["recall_duplicate"] >= 0.95
    assert figures["pii_left"] == 0
    assert figures["extract_f1"] >= 0.99


def test_changing_one_value_makes_stale_what_depends_on_it_and_nothing_else(nano, tmp_path):
    crawltalk("run", "nano", "--out", str(tmp_path / "other"), "--from", str(nano), "--evals.problems", "2")
    stages = json.loads(crawltalk("status", str(tmp_path / "other"), "--json"))["stages"]
    own = NAMES.index("evals")
    assert [row["state"] for row in stages] == ["borrowed"] * own + ["fresh"] * (len(NAMES) - own)
    assert "evals.problems: 20 -> 2" in crawltalk("diff", str(nano), str(tmp_path / "other")).splitlines()


@torch.no_grad()
@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_transformers_finds_the_same_logits_and_tokens(nano, stage):
    engine = load_engine(nano / stage)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(nano / stage, dtype=torch.float32)
    text = next(Run(nano).documents()).text
    ids = engine.tokenizer.encode(text)[:256]
    assert tokenizers.Tokenizer.from_file(str(nano / stage / "tokenizer.json")).encode(text).ids[:256] == ids
    tokens = torch.tensor([ids])
    expected = theirs(tokens).logits
    torch.testing.assert_close(load_model(nano / stage)(tokens), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(engine.logits(ids)[None], expected, atol=1e-4, rtol=0)


def test_the_model_learned_from_the_crawl(nano):
    rows = map(json.loads, (nano / "pretrain" / "log.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    figures = Run(nano).manifests()["pretrain"].metrics
    assert figures["val_bpb"] < 3.0  # 8 bits a byte untrained, about 4.5 by letter frequencies alone


def test_problems_are_kept_out_of_the_training_conversations(nano):
    trained_on = {
        message.content
        for row in read_jsonl(nano / "sft" / "conversations.jsonl", Conversation)
        for message in row.messages
    }
    problems = [row for row in read_jsonl(nano / "sft" / "problems.jsonl", Problem) if row.task != "identity"]
    assert {row.task for row in problems} >= {"flagship", "heldout", "arithmetic", "spelling", "spelling_new"}
    assert not trained_on & {row.prompt for row in problems}


def test_titles_after_the_cutoff_are_in_no_training_text(nano):
    placements = {row.id: row for row in Run(nano).placements()}
    held_out = {row.title for row in placements.values() if row.role == "heldout"}
    tokenizer = Tokenizer.load(nano / "tokenizer")
    shards = TokenShards(nano / "tokens", "train")
    read = tokenizer.decode(shards.window(0, len(shards)).tolist())
    for document in Run(nano).documents():
        assert (document.text in read) == (placements[document.id].role in ("flagship", "graded", "train"))
    assert held_out


def test_the_report_stands_alone_and_shows_every_part(nano):
    page = (nano / "report" / "report.html").read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "<script src" not in page and "@import" not in page
    for part in (
        "Crawl",
        "Tokens",
        "Pretraining",
        "Base model",
        "Assistant",
        "Hallucinations",
        "Cost",
        "Origin",
    ):
        assert f"<h2>{part}</h2>" in page
    assert page.count('class="talk"') >= 20
    assert f"crawltalk chat --model {nano}" in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_of_tokens_stands_alone_and_holds_the_vocabulary(nano):
    page = (nano / "report" / "tokens.html").read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    for title in (
        "Type a text",
        "Watch a word being built",
        "Why spelling is hard",
        "Bytes per token",
        "Glitch tokens",
    ):
        assert f"<h2>{title}</h2>" in page
    held = json.loads(
        page[page.index("\nstart(document, ") + len("\nstart(document, ") : page.rindex(");</script>")]
    )
    assert len(held["vocabularies"][0]["words"]) == Tokenizer.load(nano / "tokenizer").vocab_size - 8
    assert page.count("</script>") == 1


def test_a_run_answers_from_python(nano):
    run = Run(nano)
    reply = run.chat("What is dysprosium?")
    assert reply == run.chat("What is dysprosium?")
    assert run.chat(
        "And gold?", history=[Message("user", "What is dysprosium?"), Message("assistant", reply)]
    )
    several = run.generate("Gold is", samples=3, max_tokens=8, seed=1)
    assert len(several) == 3 and len(set(several)) > 1
    assert several == run.generate("Gold is", samples=3, max_tokens=8, seed=1)


def test_a_run_answers_on_the_command_line(nano, capsys):
    assert main(["chat", "What is dysprosium?", "--model", str(nano)]) == 0
    assert capsys.readouterr().out.strip()
    words = ["generate", "Gold is", "--model", str(nano), "--samples", "2", "--max-tokens", "8"]
    assert main(words) == 0
    assert capsys.readouterr().out.count("Gold is") == 2


ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOO_LONG = ("crawltalk run ", "crawltalk lab ", "crawltalk redteam --", "crawltalk exfiltration ")
COMMANDS = [
    line
    for path in DOCS
    for block in re.findall(r"^```\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("crawltalk ")
    and not line.startswith(TOO_LONG)
    and "smollm2" not in line
    and "://" not in line
]


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_the_commands_of_the_documentation_work(command, nano, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    for name in {
        "small",
        *re.findall(r"(?<!--out )runs/(\w+)", command),
    }:  # the runs that a page has told to build
        (tmp_path / "runs" / name).symlink_to(nano)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(shlex.split(command, comments=True)[1:]) == 0


def artifacts(path: Path) -> dict[str, str]:
    """Hash of every artifact but logs of speed and the report, which tells the time that the stages took."""
    return {
        f"{name}/{file.name}": file.sha256
        for name, manifest in Run(path).manifests().items()
        for file in manifest.files
        if name != "report" and file.name not in ("log.jsonl", "costs.json")
    }


def kill_in(stage: str, path: Path, after: float, how: signal.Signals) -> bool:
    """Go on with the journey and end it, with all its processes, `after` seconds into a stage or into the
    first one after it that is not done; True if that was in time.
    """
    starts = [f'{{"event": "start", "stage": "{name}"' for name in NAMES[NAMES.index(stage) :]]
    words = [sys.executable, "-m", "crawltalk", "run", "nano", "--out", str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if any(map(line.startswith, starts)):
                time.sleep(after)
                os.killpg(process.pid, how)
                break
    assert process.returncode in (-signal.SIGKILL, 130, 0)
    return process.returncode != 0


def test_a_journey_killed_in_every_stage_ends_with_the_same_artifacts(nano, tmp_path):
    # The first run may have compiled for half a minute what is compiled now: two seconds are enough of any stage.
    took = {name: min(manifest.seconds, 2.0) for name, manifest in Run(nano).manifests().items()}
    rng = random.Random(7)
    path = tmp_path / "killed"
    how = (signal.SIGKILL, signal.SIGINT)
    killed = [kill_in(name, path, rng.uniform(0.05, 0.5) * took[name], rng.choice(how)) for name in NAMES]
    assert sum(killed) >= len(NAMES) - 2  # a stage of a tenth of a second may be done before the signal comes
    crawltalk("run", "nano", "--out", str(path))
    assert artifacts(path) == artifacts(nano)

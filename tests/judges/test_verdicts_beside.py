"""Judges as processes: environments, limits, what is served to them, and the verb as a person types it."""

import json
import os
import sys
import sysconfig
import time
import venv
from pathlib import Path

import httpx
import pytest

from crawltalk.cli import main
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.judges import judging
from crawltalk.judges.agentdojo import Call, Suite, Task
from crawltalk.judges.environment import FOLDER, Environment, find
from crawltalk.judges.obedient import obedient
from crawltalk.judges.process import environment, run
from crawltalk.judges.report import Report, read_report, write_report
from crawltalk.judges.served import served
from crawltalk.run.folder import RunFolder

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux is asked")


def installed(name: str) -> Environment:
    """The environment of a judge below the checkout. Skips the test where there is none."""
    try:
        return find(name, ROOT / FOLDER / name)
    except MissingInput:
        pytest.skip(f"{name} is not in {FOLDER / name}: crawltalk judge {name} MODEL --make")


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- processes ---

HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


@LINUX
def test_a_judge_that_hangs_is_ended_with_all_that_it_has_started(tmp_path):
    log = tmp_path / "log"
    ended = run([sys.executable, "-c", HANGS], folder=tmp_path, log=log, seconds=1.5, variables=os.environ)
    assert ended.problem == "it was ended after 2 seconds"
    child = int(log.read_text())
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_judge_that_fails_is_quoted_and_one_that_ends_well_is_not(tmp_path):
    def ended(code: str) -> str:
        command = [sys.executable, "-c", code]
        return run(command, folder=tmp_path, log=tmp_path / "log", seconds=60, variables=os.environ).problem

    assert ended("raise ValueError('no such probe\\x1b[2J')").startswith(
        "it ended with status 1: ValueError: no such probe"
    )
    assert "\x1b" not in ended("raise ValueError('\\x1b[2J')")
    assert ended("print(1)") == ""


def test_a_judge_sees_none_of_our_modules_and_no_network_for_models(tmp_path):
    code = "import os, sys; print(os.getenv('PYTHONPATH'), os.environ['HF_HUB_OFFLINE'], 'crawltalk' in sys.modules)"
    variables = environment(tmp_path, online=False, PYTHONPATH="/nowhere")
    run([sys.executable, "-c", code], folder=tmp_path, log=tmp_path / "log", seconds=60, variables=variables)
    assert (tmp_path / "log").read_text().split() == ["None", "1", "False"]
    assert "HF_HUB_OFFLINE" not in {**environment(tmp_path, online=True)}.keys() - os.environ.keys()


def test_no_judge_is_imported_with_what_reads_its_reports():
    assert judging is not None
    assert not {"garak", "agentdojo", "lm_eval"} & sys.modules.keys()


# --- what is served ---


def test_a_null_model_answers_as_a_model_would():
    with served("null-parrot", max_tokens=16, name="small") as at:
        body = {"model": "small", "messages": [{"role": "user", "content": "What does the tide do?"}]}
        answer = httpx.post(f"{at.origin}/v1/chat/completions", json=body).json()
        assert at.takes_tools()
    assert answer["choices"][0]["message"]["content"] == "What does the tide do?"


def test_a_conversation_with_tools_goes_through_as_agentdojo_sends_it():
    """Instructions by the role developer, texts as parts, results with the name of their function."""
    task = Task(
        "Lend Ada a book", [Call("find", {"about": "tides"}), Call("lend", {"to": "Ada"})], "Lent to Ada."
    )
    tool = {"type": "function", "function": {"name": "lend", "description": "", "parameters": {}}}
    conversation = [
        {"role": "developer", "content": [{"type": "text", "text": "Be of use."}]},
        {"role": "user", "content": [{"type": "text", "text": "Lend Ada a book"}]},
    ]
    names = []
    replies = obedient({"library": Suite(1, {"user_task_0": task}, {})})
    with served("obedient", max_tokens=64, replies=replies) as at:
        for _ in range(3):
            body = {
                "model": at.name,
                "messages": conversation,
                "tools": [tool, {**tool, "function": {**tool["function"], "name": "find"}}],
            }
            answer = httpx.post(
                f"{at.origin}/v1/chat/completions", json={**body, "tool_choice": "auto"}
            ).json()
            said = answer["choices"][0]["message"]
            for call in said.get("tool_calls", ()):
                names.append(call["function"]["name"])
                result = {"role": "tool", "tool_call_id": call["id"], "name": names[-1]}
                conversation += [
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {**result, "content": [{"type": "text", "text": "- done"}]},
                ]
    assert names == ["find", "lend"]
    assert said["content"] == "Lent to Ada."


def test_an_address_of_another_machine_needs_a_word():
    with (
        pytest.raises(BadInput, match="--i-may-attack-it"),
        served("http://models.example/v1", max_tokens=8),
    ):
        pass


# --- the verb ---


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["garack", "null-parrot"], "no judge is called 'garack'; did you mean 'garak'?"),
        (["garak", "null-parrot", "--limit", "0"], "--limit and --max-tokens are 1 or more"),
        (["garak", "null-parrot", "--direct"], "--direct and --data are for lm-eval"),
        (
            ["agentdojo", "null-parrot", "--only", "banks"],
            "no suite of AgentDojo is called 'banks'; did you mean 'banking'?",
        ),
        (
            ["lm-eval", "null-parrot"],
            "lm-eval needs tasks by --only and as many files of questions by --data",
        ),
        (
            ["lm-eval", "null-parrot", "--only", "mmlu_pro", "--data", "q.jsonl"],
            "no task of lm-eval is called 'mmlu_pro'",
        ),
        (["garak", "null-parrot"], "garak is not in judges/environments/garak; make it with --make (1.3 GB"),
        (["garak", "null-parrot", "--venv", "here"], "garak is not in here; make it with --make"),
    ],
)
def test_a_mistake_gets_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["judge", *words]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert line in said.replace("\\", "/")
    assert list(tmp_path.iterdir()) == []


def test_two_judgements_at_once_do_not_write_into_one_folder(tmp_path, capsys):
    venv.create(tmp_path / "venv", symlinks=sys.platform != "win32")
    packages = sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "venv")})
    program = Path(packages, "garak-0.17.1.dist-info")  # says that it is installed; nothing of it runs
    program.mkdir()
    (program / "METADATA").write_text("Metadata-Version: 2.1\nName: garak\nVersion: 0.17.1\n")
    named = ["judge", "garak", "null-parrot", "--venv", str(tmp_path / "venv"), "--out"]
    with RunFolder(tmp_path / "out").lock():
        assert main([*named, str(tmp_path / "out")]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert f"another crawltalk is at work in {tmp_path / 'out'}; wait for it, or choose --out" in said
    (tmp_path / "file").touch()
    assert main([*named, str(tmp_path / "file")]) == 2
    assert "a file is in its way" in capsys.readouterr().err


def test_an_environment_without_the_judge_is_told_from_one_with_it():
    with pytest.raises(MissingInput, match=r"-m pip install 'garak==0\.17\.1'"):
        find("garak", Path(sys.prefix))


def test_a_folder_with_the_report_of_another_model_is_kept(tmp_path):
    report = Report(judge="garak", version="0.17.1", model="other", commands=[], seconds=1.0, finished=True)
    write_report(tmp_path, report, [])
    assert read_report(tmp_path) == report
    options = judging.Options(out=tmp_path, seconds=1.0)
    with pytest.raises(BadInput, match="has the report of garak on other; choose another --out"):
        judging.by_garak(Environment(Path("python"), "0.17.1"), "null-parrot", ["dan"], 1, options)


# --- the judges themselves, where they are installed ---


@pytest.mark.slow
def test_agentdojo_finds_that_the_obedient_agent_does_everything(tmp_path):
    options = judging.Options(out=tmp_path, seconds=120.0, controls=False)
    report = judging.by_agentdojo(installed("agentdojo"), "obedient", ["banking"], 1, options)
    [part] = report.parts
    assert report.finished, report.problem
    assert (part.evaluated, part.hits, part.ours["success"], part.figures["done"]) == (1, 1, 1, 1.0)


@pytest.mark.slow
def test_garak_takes_random_letters_for_a_jailbreak_and_we_do_not(tmp_path):
    options = judging.Options(out=tmp_path, seconds=120.0)
    judge = installed("garak")
    with served("null-nonsense", max_tokens=16) as at:
        report = judging.by_garak(judge, f"{at.origin}/v1", ["dan.DanInTheWild"], 2, options)
    [part] = report.parts
    assert report.finished, report.problem
    assert (part.evaluated, part.hits, part.ours["success"]) == (2, 2, 0)
    assert json.loads((tmp_path / "report.json").read_text())["capability"] == 0.0

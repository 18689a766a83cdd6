"""What is compiled ahead is what the stages use; and a run does without it."""

import json
import subprocess
import sys

import pytest

from crawltalk.verbs import compiling
from crawltalk.verbs.compiling import compiling_ahead

PLAN = {"event": "plan", "stages": {"data": "fresh", "tokenizer": "absent"}}
START = {"event": "start", "stage": "tokenizer", "state": "absent", "reasons": []}
STAGES = """
import json, sys
from pathlib import Path
from numba.extending import is_jitted
from crawltalk.data.assemble import assemble
from crawltalk.data.filters.urls import write_blocklist
from crawltalk.data.parts import FileTask
from crawltalk.data.worker import refine
from crawltalk.pretraining.tokenizer import tokenizer
from crawltalk.pretraining.tokens import tokens
from crawltalk.recipe import Machine
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.stage import Job, Progress
from crawltalk.verbs.compiling import PARTS

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("crawltalk.")]
    return {
        (f"{value.py_func.__module__}.{value.__name__}", str(signature))
        for module in modules for value in vars(module).values() if is_jitted(value)
        for signature in value.signatures
    }

nano, out = map(Path, sys.argv[1:])
recipe = load_recipe("nano")
parts, before = {}, set()
for name in ("pages", "texts", "tokenizer"):
    PARTS[name]()
    parts[name] = sorted({function for function, _ in compiled() - before})
    before = compiled()

def job(name, *inputs):
    folder = out / name
    folder.mkdir()
    folders = {stage: nano / stage for stage in inputs}
    return Job(getattr(recipe, name), folders, folder, 0, Machine(workers=2), Progress())

data = job("data", "crawl")
write_blocklist(None, data.out / "blocklist.npy")
source = nano / "crawl" / "sample-00000.warc.gz"
task = FileTask(number=0, source=str(source), size=1, folder=data.out, config=recipe.data)
refine(task)
assemble([task], data, map)
tokenizer(job("tokenizer", "data"))
tokens(job("tokens", "crawl", "data", "tokenizer"))
print(json.dumps({"parts": parts, "more": sorted(compiled() - before)}))
"""


@pytest.mark.slow
def test_the_stages_compile_nothing_beyond_the_parts_and_no_two_parts_the_same(nano, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STAGES, str(nano), str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["more"] == []
    functions = [function for names in found["parts"].values() for function in names]
    assert len(functions) == len(set(functions)) > 0


@pytest.fixture
def no_marks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_part_is_compiled_once_and_a_stage_waits_for_it(no_marks):
    events = []
    with compiling_ahead(events.append) as on_event:
        on_event(PLAN)
        on_event(START)
        assert compiling._Marks().has("tokenizer")
        assert not compiling._Marks().has("pages")  # of a stage that is fresh
    assert events == [PLAN, START]
    compiler = compiling._Compiler()
    compiler.start(["tokenizer"])
    assert compiler.process is None


def test_a_compiler_that_is_killed_or_cannot_start_holds_no_stage_up(no_marks, monkeypatch):
    compiler = compiling._Compiler()
    compiler.start(["tokenizer"])
    compiler.process.kill()
    compiler.wait_for(("tokenizer",))
    compiler.end()
    monkeypatch.setattr(sys, "executable", "no/such/program")
    with compiling_ahead(lambda event: None) as on_event:
        on_event(PLAN)
        on_event(START)

"""The script that reinforces a model on GSM8K and checks itself."""

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from crawltalk.chat.render import ChatRenderer
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.tokenizer import Tokenizer
from support.models import random_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "reinforce_gsm8k.py"
EVEN = """
from crawltalk.rewards import correct

def even(problem, reply):
    return correct(sum(byte % 2 == 0 for byte in reply.encode()) / max(1, len(reply.encode())))
"""


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("reinforce_gsm8k", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(*rewards: float, apart: float = 0.001) -> list[dict]:
    return [
        {"step": n, "loss": 0.1, "norm": 1.0, "reward": reward, "entropy": 2.0, "sampler_difference": apart}
        for n, reward in enumerate(rewards)
    ]


def failed(result: dict) -> list[str]:
    return [name for name, check in result["checks"].items() if not check["passed"]]


def test_each_check_can_fail(script):
    rising = [0.0, 0.1] * 2 + [0.1, 0.2] * 2 + [0.3, 0.4] * 2
    assert failed(script.judged(steps(*rising), [], "", "")) == []
    assert failed(script.judged(steps(*rising[::-1]), [], "", "")) == ["the reward rises"]
    assert failed(script.judged(steps(*rising[::-1])[:3], [], "", "")) == []  # too few steps to tell
    assert failed(script.judged(steps(*rising, apart=0.05), [], "", "")) == ["sampler and trainer agree"]
    assert failed(script.judged(steps(0.1, float("nan")), [], "", "")) == ["finite"]
    assert failed(script.judged(steps(0.1), [{"event": "warning", "text": "alarm"}], "", "")) == ["no alarms"]
    unfinished = script.judged([], [], "exit code 2", "one\nerror: no model\n")
    assert unfinished["checks"]["finished"]["found"] == "exit code 2: error: no model"
    assert not unfinished["passed"]


@pytest.mark.slow
def test_it_reinforces_a_tiny_model_and_says_what_it_found(tmp_path):
    tokenizer = Tokenizer.trained([])
    shape = Shape(
        vocab_size=tokenizer.vocab_size,
        layers=1,
        width=32,
        heads=2,
        kv_heads=1,
        head_dim=16,
        mlp=64,
        context=256,
    )
    ChatRenderer(tokenizer).save(tmp_path / "model")
    save_model(random_model(shape), tmp_path / "model", eos=tokenizer.special_tokens["<|im_end|>"])
    for name in ("train", "test"):
        rows = [{"question": f"{n} + {len(name)}?", "answer": f"#### {n + len(name)}"} for n in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "my_reward.py").write_text(EVEN, encoding="utf-8")
    further = ["--grpo.verifier", "my_reward:even", "--grpo.ignore_audit", "true", "--machine.workers", "1"]
    words = [sys.executable, str(SCRIPT), "model", ".", "--device", "cpu", "--", *further]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    result = json.loads(done.stdout)
    assert failed(result) == ["no alarms"] and done.returncode == 1, done.stderr[-2000:]
    assert "what may fool the reward of gsm8k" in result["checks"]["no alarms"]["found"]
    assert all(step["sampler_difference"] > 0 for step in result["steps"])
    assert "accuracy.gsm8k.before" in result["metrics"]

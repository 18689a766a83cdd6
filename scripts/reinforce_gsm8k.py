"""GRPO of a small model on GSM8K that checks itself: on a GPU in less than ten minutes, elsewhere in miniature.

    python scripts/reinforce_gsm8k.py MODEL GSM8K [--device cuda] [--seconds 540] [-- --grpo.steps 40 ...]

MODEL is an imported chat model (`crawltalk import smollm2`: models/smollm2), GSM8K a folder with train.jsonl and
test.jsonl (github.com/openai/grade-school-math). It runs `crawltalk grpo` with both files as `[grpo.data]` and the
flags behind `--`, and prints one JSON object: the figures, and the checks with what they found. It exits with 1 if a
check fails.

A model of 135 million parameters solves few of these problems. What rises within some dozens of steps is the form that
the reward asks for, too: an answer in a box.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crawltalk.posttraining.reinforce import MAX_SAMPLER_DIFFERENCE

SYSTEM = r"Solve the problem step by step, then write the answer in \boxed{}."
VERIFIER = "number + 0.2 * boxed"
SETTINGS = {
    "cuda": {"steps": 30, "groups": 16, "samples": 16, "max_tokens": 200, "problems": 200, "eval_every": 15},
    "cpu": {"steps": 2, "groups": 2, "samples": 4, "max_tokens": 16, "problems": 4, "eval_every": 2},
}
TELLING = 12
"""Steps from which on a rise of the reward is asked for."""


def command(model: Path, gsm8k: Path, out: Path, device: str, further: Sequence[str]) -> list[str]:
    """The command that a person would give."""
    flags = {
        "base": model,
        "system": SYSTEM,
        "verifier": VERIFIER,
        "data.gsm8k.path": gsm8k / "train.jsonl",
        "data.gsm8k.test": gsm8k / "test.jsonl",
        "lora.rank": 16,
        "lora.lr": 0.0005,
        **SETTINGS[device],
    }
    words = [word for name, value in flags.items() for word in (f"--grpo.{name}", str(value))]
    machine = ["--machine.device", device, "--machine.dtype", "float32"]
    return [
        sys.executable, "-m", "crawltalk", "grpo", "nano", "--out", str(out), *words, *machine, *further
    ]  # fmt: skip


def run(words: Sequence[str], seconds: float) -> tuple[str, str, str]:
    """Stdout, stderr, and why it did not end well, if it did not."""
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = child.communicate(timeout=seconds)
        return output, errors, f"exit code {child.returncode}" if child.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with the process of the stage
        output, errors = child.communicate()
        return output, errors, f"not done after {seconds:g} s"
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise


def rise(rewards: Sequence[float]) -> tuple[float, float]:
    """How much higher the mean reward of the last third of the steps is than that of the first, and its standard error
    over steps.
    """
    third = max(1, len(rewards) // 3)
    first, last = rewards[:third], rewards[-third:]
    error = math.sqrt(sum(statistics.pvariance(part) / len(part) for part in (first, last)))
    return statistics.fmean(last) - statistics.fmean(first), error


def judged(
    rows: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], problem: str, errors: str
) -> dict[str, Any]:
    """The figures and the checks, each with what it found."""
    warned = [event["text"] for event in events if event["event"] == "warning"]
    alarms = [text for text in warned if "set aside" not in text]  # long problems are no alarm
    finished = next((event for event in events if event["event"] == "finish"), {})
    numbers = ("loss", "norm", "reward", "entropy", "sampler_difference")
    broken = [row["step"] for row in rows if not all(math.isfinite(row.get(name) or 0.0) for name in numbers)]
    apart = max((row.get("sampler_difference") or 0.0 for row in rows), default=math.inf)
    higher, error = rise([row["reward"] for row in rows]) if rows else (0.0, 0.0)
    checks = {
        "finished": (not problem, problem and f"{problem}: {(errors.strip().splitlines() or [''])[-1]}"),
        "finite": (not broken, f"steps {broken}"),
        "sampler and trainer agree": (
            apart <= MAX_SAMPLER_DIFFERENCE,
            f"{apart:.4f} nats a token apart, the most of a step",
        ),
        "no alarms": (not alarms, "; ".join(alarms)),
    }
    if len(rows) >= TELLING:
        checks["the reward rises"] = (higher > 2 * error, f"by {higher:.3f} +- {error:.3f}")
    return {
        "passed": all(passed for passed, _ in checks.values()),
        "checks": {name: {"passed": passed, "found": found} for name, (passed, found) in checks.items()},
        "rise": {"reward": round(higher, 4), "standard_error": round(error, 4)},
        "metrics": finished.get("metrics", {}),
        "peak_memory_bytes": finished.get("peak_memory_bytes"),
        "steps": [
            {
                name: row.get(name)
                for name in (
                    *numbers,
                    "accuracy",
                    "length",
                    "groups_without_signal",
                    "rollout_tokens_per_second",
                )
            }
            for row in rows
        ],
    }


def main() -> int:
    """Print everything; 0 if all checks pass."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("gsm8k", type=Path)
    parser.add_argument("--device", choices=SETTINGS, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=540.0)
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    options, further = parser.parse_args(given[:end]), given[end + 1 :]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends, too
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crawltalk-gsm8k-") as folder:
        out = Path(folder) / "run"
        words = command(options.model, options.gsm8k, out, options.device, further)
        output, errors, problem = run(words, options.seconds)
        events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        log = next(out.rglob("log.jsonl"), None)  # in the work folder, if it did not finish
        lines = log.read_text(encoding="utf-8").splitlines() if log else []
        rows = [row for row in map(json.loads, lines) if "reward" in row]
    result = judged(rows, events, problem, errors)
    print(json.dumps({"device": options.device, "seconds": round(time.monotonic() - began, 1), **result}))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())

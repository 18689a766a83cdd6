"""The section on reinforcement."""

import json

from crawltalk import recipe
from crawltalk.report.reinforcement import reinforcement
from crawltalk.run.stage import Job, Progress


def report_job(folder, models):
    inputs = {name: folder / name for name in models}
    return Job(recipe.Report(), inputs, folder, 0, recipe.Machine(), Progress(), models)


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def test_a_run_without_a_reinforcement_has_no_such_section(tmp_path):
    (tmp_path / "sft").mkdir()
    assert reinforcement(report_job(tmp_path, {"sft": "assistant"})) is None


def test_curves_figures_and_replies_of_several_steps_are_shown(tmp_path):
    folder = tmp_path / "grpo"
    folder.mkdir()
    steps = [
        {
            "step": step,
            "reward": step / 40,
            "accuracy": step / 40,
            "length": 10.0 + step,
            "entropy": None,
            "kl": 0.5,
        }
        for step in range(40)
    ]
    tests = [{"step": step, "accuracy.sums": 0.25, "length.sums": 9.0, "samples": []} for step in (19, 39)]
    write(folder / "log.jsonl", [*steps, *tests])
    (folder / "rollouts.jsonl").touch()
    replies = [
        {
            "step": step,
            "task": "sums",
            "prompt": prompt,
            "answer": "7",
            "reply": f"<think>{step}</think>{prompt}",
        }
        for step in range(0, 70, 10)
        for prompt in ("3 + 4?", "another?")
    ]
    write(folder / "samples.jsonl", replies)
    (tmp_path / "sft").mkdir()
    html = reinforcement(report_job(tmp_path, {"sft": "assistant", "grpo": "assistant"}))
    assert html is not None and html.count("<svg") == 2
    assert ">sampled<" in html and ">sums<" in html
    shown = [f"&lt;think&gt;{step}&lt;/think&gt;3 + 4?" for step in range(0, 70, 10)]
    assert [one in html for one in shown] == [True, False, True, False, True, False, True]
    assert "another?" not in html and "<think>" not in html
    assert "first 4 steps" in html and "0.0375" in html and "0.9375" in html  # the mean rewards
    assert "entropy" not in html and "kl" in html
    assert f"crawltalk grpo {tmp_path}" in html

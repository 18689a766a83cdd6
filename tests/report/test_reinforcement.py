"""The chapter on reinforcement."""

import json

from crawltalk import recipe
from crawltalk.core.statistics import wilson
from crawltalk.report.chapter import render
from crawltalk.report.reinforcement import _intervals, reinforcement
from crawltalk.run.stage import Job, Progress


def report_job(folder, models):
    inputs = {name: folder / name for name in models}
    return Job(recipe.Report(), inputs, folder, 0, recipe.Machine(), Progress(), models)


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def test_a_run_without_a_reinforcement_has_no_such_chapter(tmp_path):
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
    chapter = reinforcement(report_job(tmp_path, {"sft": "assistant", "grpo": "assistant"}))
    assert chapter is not None
    assert "went from 4&nbsp;% to 94&nbsp;% in 40 steps" in chapter.sentence
    html = render("Reinforcement", chapter)
    assert html.count("<svg") == 2
    assert ">sampled<" in html and ">sums<" in html
    shown = [f"&lt;think&gt;{step}&lt;/think&gt;3 + 4?" for step in range(0, 70, 10)]
    assert [one in html for one in shown] == [True, False, True, False, True, False, True]
    assert "another?" not in html and "<think>" not in html
    assert "first 4 steps" in html and "0.0375" in html and "0.9375" in html  # the mean rewards
    assert "entropy" not in html and "(KL)" in html
    assert f"crawltalk grpo {tmp_path}" in html


def test_accuracy_has_the_interval_of_as_many_problems_as_the_log_says_were_asked(tmp_path):
    steps = [{"step": step, "reward": 0.5, "accuracy": 0.5, "length": 9.0} for step in range(4)]
    tests = [
        {"step": step, "accuracy.sums": share, "length.sums": 9.0} for step, share in ((0, 0.25), (3, 1.0))
    ]
    counted = [row | {"asked": {"sums": 16}} for row in tests]
    assert _intervals(steps + tests) == {}
    assert _intervals([*steps, *counted]) == {"sums": [wilson(4, 16), wilson(16, 16)]}
    assert _intervals([*steps, tests[0], counted[1]]) == {}  # a log that another version began
    folder = tmp_path / "grpo"
    folder.mkdir()
    (folder / "rollouts.jsonl").touch()
    pages = []
    for rows in (tests, counted):
        write(folder / "log.jsonl", [*steps, *rows])
        chapter = reinforcement(report_job(tmp_path, {"grpo": "assistant"}))
        assert chapter is not None
        pages.append(render("Reinforcement", chapter))
    assert "intervals at 95 %" not in pages[0] and "intervals at 95 %" in pages[1]
    assert [page.count("FillBetween") for page in pages] == [0, 1]
    assert pages[1].count("<svg") == 2 and "asked" not in pages[1].replace("asks", "")


def test_where_a_reward_model_scores_the_curve_is_its_score_and_no_reply_is_right(tmp_path):
    folder = tmp_path / "rlhf"
    folder.mkdir()
    steps = [{"step": step, "reward": step / 10, "accuracy": 1.0, "length": 9.0} for step in range(10)]
    write(
        folder / "log.jsonl",
        [*steps, {"step": 9, "reward.held_out": 0.4, "length.held_out": 8.0, "samples": []}],
    )
    (folder / "rollouts.jsonl").touch()
    write(
        folder / "samples.jsonl",
        [{"step": 9, "task": "prompt", "prompt": "Why?", "reply": "So.", "reward": 0.25}],
    )
    chapter = reinforcement(report_job(tmp_path, {"rlhf": "assistant"}))
    assert chapter is not None and "mean reward went from 0.00 to 0.90" in chapter.sentence
    html = render("Reinforcement", chapter)
    assert ">held_out<" in html
    assert "(reward: 0.25)" in html and "right replies" not in html

"""What the page of runs shows of a reinforcement, in a browser."""

import json
import shutil

import msgspec
import pytest
from playwright.sync_api import expect

from crawltalk.core.types import Problem
from crawltalk.posttraining.reinforce import ROLLOUTS, Group
from crawltalk.rewards.verdict import Outcome, Verdict, correct, wrong
from crawltalk.serve import Settings
from crawltalk.serve.ui.routes import routes
from crawltalk.serve.ui.runs import Runs
from support.searchable import run_with
from support.serving import serving

STEPS = 40


def group(step):
    verdicts = [correct(1.0), wrong(0.0), Verdict(Outcome.ERROR, None, "the verifier hung")]
    replies = [f"<think>{step}</think>7", "<b>8</b>", "9", "10"]
    problem = Problem(prompt="3 + 4?", answer="7", task="addition")
    return Group(
        step=step, problem=problem, replies=replies, lengths=[5, 4, 1, 1], verdicts=[*verdicts, wrong(0.0)]
    )


def rows(steps):
    for step in range(steps):
        learned = {
            "step": step,
            "loss": 0.01,
            "reward": step / STEPS,
            "accuracy": step / STEPS,
            "length": 9.0,
        }
        yield learned | {"entropy": 1 - step / STEPS, "not_judged": 0.25, "sampler_difference": 0.001}
        if step % 20 == 19:
            yield {"step": step, "accuracy.addition": 0.5, "length.addition": 8.0, "samples": []}


@pytest.fixture
def run(tmp_path):
    run = run_with(tmp_path / "run", "1", ["Gold\nGold is a metal."])
    recipe = run.path / "recipe.toml"
    text = recipe.read_text("utf-8")
    recipe.write_text(text.replace("[grpo.tasks]", "[grpo.tasks]\naddition = 1.0"), "utf-8")
    work = run.work("grpo")
    work.mkdir(parents=True)
    (work / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows(STEPS)))
    lines = [msgspec.json.encode(group(step)) + b"\n" for step in range(STEPS) for _ in range(3)]
    (work / ROLLOUTS).write_bytes(b"".join(lines))
    return run


def test_samples_are_found_at_any_time_of_a_training(run):
    runs = Runs(run)
    steps = [[row["step"] for row in runs.rollouts("run", "grpo", at)] for at in (0, 0.5, 0.999, 1)]
    assert steps[0] == [0, 0, 0] and steps[1][0] == 20 and steps[2][-1] == steps[3][-1] == STEPS - 1
    shutil.rmtree(run.work("grpo"))
    assert runs.rollouts("run", "grpo", 1) == []


@pytest.mark.slow
def test_a_reinforcement_is_drawn_with_its_alarms_and_samples(run, chromium):
    settings = Settings()
    with (
        serving(settings, routes=routes(run, {}, None, settings)) as server,
        chromium.new_context(base_url=server.url) as context,
    ):
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        complaints = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto("/#/runs")
        expect(tab.get_by_role("heading", name="Reinforcement")).to_be_visible()
        expect(tab.get_by_label("reward 0.975 at step 39")).to_be_visible()
        expect(
            tab.get_by_label("accuracy 0.975 at step 39; accuracy.addition 0.500 at step 39")
        ).to_be_visible()
        alarms = tab.get_by_role("status", name="Alarms").get_by_role("listitem")
        expect(alarms).to_have_count(2)
        expect(alarms.first).to_contain_text("25.0 % of the last replies got no reward")
        expect(alarms.last).to_contain_text("entropy has fallen from 0.95 to 0.025")
        sample = tab.locator(".group").first
        expect(sample.locator(".reply").first).to_have_text("<think>39</think>7")
        expect(sample).to_contain_text("no reward, 1 token: the verifier hung")
        assert sample.locator("b").count() == 0
        tab.get_by_label("From the beginning to the newest").fill("50")
        expect(sample.locator(".reply").first).to_have_text("<think>20</think>7")
        with open(run.work("grpo") / "log.jsonl", "a") as file:
            file.write(json.dumps({"step": STEPS, "reward": 1.0, "not_judged": 0.0, "entropy": 0.5}) + "\n")
        expect(tab.get_by_label("reward 1.000 at step 40")).to_be_visible()
        expect(alarms).to_have_count(0)
        tab.set_viewport_size({"width": 360, "height": 740})
        tab.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        assert complaints == []

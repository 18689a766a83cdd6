"""Problems of files, generators and environments, and what judges the replies to them."""

import json
import os
import random
from types import SimpleNamespace

import pytest

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput, BadRecipe, MissingInput
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Problem
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.pipeline import stages
from crawltalk.posttraining.external_inputs import external_inputs
from crawltalk.posttraining.grpo import grpo, task_judge
from crawltalk.posttraining.mixture import Refused
from crawltalk.posttraining.problem_sources import check_sources, judge_of, read_sources
from crawltalk.posttraining.reinforce import Group
from crawltalk.recipe import Grpo, Machine, ProblemSource
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer
from support.models import random_model

TOKENIZER = Tokenizer.trained([])
SHAPE = Shape(
    vocab_size=TOKENIZER.vocab_size, layers=1, width=32, heads=2, kv_heads=1, head_dim=16, mlp=64, context=128
)


def sums(path, count: int = 20) -> str:
    rows = [{"question": f"{n} + 1?", "answer": f"{n} + 1 is\n#### {n + 1}"} for n in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def read(config: Grpo, fits=lambda _: True, seed: int = 0):
    return read_sources(config, fits, seed, Progress())


def source(**values) -> Grpo:
    return Grpo(data={"mine": ProblemSource(**values)})


def test_flags_name_a_file_and_its_verifier_and_ask_for_the_stage():
    flags = {
        "grpo.data.gsm8k.path": "gsm8k.jsonl",
        "grpo.data.sums.generator": "chain_sum",
        "grpo.data.sums.options.max_terms": "2",
        "grpo.data.sums.weight": "0.5",
        "grpo.verifier": "number + 0.2 * think",
    }
    recipe = load_recipe("nano", flags=flags)
    assert recipe.grpo.data["gsm8k"] == ProblemSource(path="gsm8k.jsonl")
    assert recipe.grpo.data["sums"].options == {"max_terms": 2}
    assert "grpo" in [stage.name for stage in stages(recipe)]
    of_another_model = load_recipe("small", flags=flags | {"grpo.base": "smollm2"})
    assert of_another_model.grpo.tasks == {}
    assert load_recipe("small", flags=flags).grpo.tasks == {"arithmetic": 3, "factuality": 1}


def test_some_problems_are_held_out_and_none_that_asks_the_same_is_learned(tmp_path):
    path = sums(tmp_path / "sums.jsonl")
    with open(path, "a", encoding="utf-8") as file:
        file.writelines("\n" + json.dumps({"prompt": f"{n} + 1?", "answer": n + 1}) for n in range(20))
    config = Grpo(data={"mine": ProblemSource(path=path)}, validation=0.2)
    sets, refused = read(config)
    mine = sets["mine"]
    assert (len(mine.held_out), refused, mine.verifier) == (8, [], "number")
    assert not {one.prompt for one in mine.held_out} & {one.prompt for one in mine.learned}
    assert {one.task for one in mine.learned} == {"mine"}
    assert list(mine.problems(random.Random(0), "test", 3)) == mine.held_out[:3]
    assert {p.prompt for p in mine.problems(random.Random(0), "train", 9)} <= {p.prompt for p in mine.learned}
    assert read(config)[0]["mine"] == mine
    assert read(config, seed=1)[0]["mine"] != mine


def test_a_file_of_its_own_may_be_what_is_held_out(tmp_path):
    config = Grpo(
        data={"mine": ProblemSource(path=sums(tmp_path / "a.jsonl"), test=sums(tmp_path / "b.jsonl", 3))},
        problems=2,
    )
    mine = read(config)[0]["mine"]
    assert {one.prompt for one in mine.held_out} < {"0 + 1?", "1 + 1?", "2 + 1?"}
    assert (len(mine.learned), len(mine.held_out)) == (18, 2)


def test_problems_that_leave_no_room_for_a_reply_are_set_aside_and_counted(tmp_path):
    path = sums(tmp_path / "sums.jsonl")
    with open(path, "a", encoding="utf-8") as file:
        file.write('\n\n{"text": "no problem"}\n')
    sets, refused = read(source(path=path), lambda problem: problem.prompt != "3 + 1?")
    assert len(sets["mine"].learned + sets["mine"].held_out) == 19
    assert [(one.file, one.row) for one in refused] == [(path, 4), (path, 22)]
    assert refused[0].reason.startswith("the question is too long")
    with pytest.raises(BadInput, match=r"has 0 problems .* set aside: the question is too long .* \(20\)"):
        read(source(path=path), lambda _: False)


def test_columns_may_be_named(tmp_path):
    rows = [{"asked": {"text": f"{n} + 1"}, "result": n + 1, "answer": "no"} for n in range(5)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    found = read(source(path=str(tmp_path / "rows.json"), prompt="asked.text", answer="result"))[0]["mine"]
    assert sorted((one.prompt, one.answer) for one in found.learned + found.held_out)[0] == ("0 + 1", "1")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({}, "is a file, a generator or an environment"),
        ({"path": "a.jsonl", "generator": "chain_sum"}, "is a file, a generator or an environment"),
        ({"generator": "chain_sum", "test": "b.jsonl"}, "test, prompt and answer are for files"),
        ({"generator": "chain_sum", "verifier": "numbr"}, "'numbr' is neither number"),
        ({"generator": "chain_sum", "weight": 0}, "a weight is more than 0"),
    ],
)
def test_what_is_no_source_is_refused(values, what, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sums(tmp_path / "a.jsonl")
    with pytest.raises(BadRecipe, match=what):
        check_sources(source(**values))


def test_a_missing_file_and_the_name_of_a_task_are_refused():
    with pytest.raises(MissingInput, match=r"grpo.data.mine.path: there is no file absent.jsonl"):
        check_sources(source(path="absent.jsonl"))
    with pytest.raises(BadRecipe, match="name of a task"):
        check_sources(Grpo(data={"arithmetic": ProblemSource(path="absent.jsonl")}))


def test_a_verifier_that_judges_nothing_is_refused(tmp_path):
    with pytest.raises(BadRecipe, match=r"grpo\.verifier judges problems of files, and there are none"):
        check_sources(Grpo(tasks={"arithmetic": 1}, verifier="number"))
    sums(tmp_path / "a.jsonl")
    check_sources(Grpo(data={"mine": ProblemSource(path=str(tmp_path / "a.jsonl"))}, verifier="number"))


def test_a_verifier_that_may_not_reward_is_refused_unless_a_person_insists(tmp_path):
    """`exact` is fooled by nothing, but `task` knows no problems of files."""
    path = sums(tmp_path / "sums.jsonl")
    config = Grpo(data={"mine": ProblemSource(path=path, verifier="task")})
    with (
        pytest.raises(BadRecipe, match=r"grpo.data.mine: the verifier task may not .* refuses .* golds"),
        judge_of(read(config)[0], task_judge, config, 1, Progress()),
    ):
        pass
    insisting = Grpo(data=config.data, ignore_audit=True)
    with judge_of(read(insisting)[0], task_judge, insisting, 1, Progress()) as judge:
        assert judge([], []) == []


def test_each_source_is_judged_by_its_own_verifier(tmp_path):
    path = sums(tmp_path / "sums.jsonl")
    config = Grpo(
        data={
            "thought": ProblemSource(path=path, verifier="number + 0.2 * think"),
            "plain": ProblemSource(path=path),
        }
    )
    sets, _ = read(config)
    asked = [
        Problem(prompt="1 + 1?", answer="2", task=task)
        for task in ("thought", "arithmetic", "plain", "thought")
    ]
    with judge_of(sets, task_judge, config, 1, Progress()) as judge:
        verdicts = judge(asked, ["<think>so</think>2", "2", "2", "2"])
    assert [verdict.reward for verdict in verdicts] == [1.2, 1, 1, 1]


def test_a_generator_makes_problems_and_judges_replies():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed (the extra reasoning-gym)")
    config = Grpo(
        data={
            "sums": ProblemSource(
                generator="chain_sum",
                options={"max_terms": 2, "max_digits": 1},
                size=30,
                verifier="own + 0.1 * think",
            )
        }
    )
    sets, _ = read(config)
    assert len(sets["sums"].held_out) == 3
    with judge_of(sets, task_judge, config, 1, Progress()) as judge:
        asked = sets["sums"].learned[0]
        found = judge([asked, asked], [asked.answer, "<think>so</think>" + asked.answer])
    assert [verdict.reward for verdict in found] == [1, 1.1]
    assert external_inputs(config)["reasoning-gym"]


class Sum:
    """A task of an environment, as `verifiers` has them."""

    def __init__(self, number: int) -> None:
        self.data = SimpleNamespace(prompt_text=f"{number} + 1?", answer=str(number + 1))

    def hooks(self, sort: str) -> list:
        return []

    async def score(self, trace) -> None:
        trace.record_reward("right", trace.last_reply == self.data.answer)


def taskset():
    return map(Sum, range(10**9))


def test_an_environment_gives_problems_and_judges_replies():
    config = source(environment=f"{__name__}:taskset", size=12)
    sets, _ = read(config)
    with judge_of(sets, task_judge, config, 1, Progress()) as judge:
        asked = sets["mine"].learned[0]
        assert [verdict.reward for verdict in judge([asked] * 2, [asked.answer, "none"])] == [1, 0]
    with pytest.raises(BadRecipe, match="is no module:name that loads"):
        read(source(environment="nowhere:taskset"))


def test_files_of_problems_decide_the_result(tmp_path):
    path = sums(tmp_path / "sums.jsonl")
    before = external_inputs(source(path=path))
    os.utime(path, ns=(0, 0))
    assert external_inputs(source(path=path)) != before
    assert external_inputs(source(path=path, test="b.jsonl"))["files"][1] == ["b.jsonl"]


def test_the_stage_learns_from_a_file_and_measures_what_is_held_out_before_and_after(tmp_path):
    model, out = tmp_path / "model", tmp_path / "grpo"
    out.mkdir()
    ChatRenderer(TOKENIZER).save(model)
    save_model(random_model(SHAPE), model, eos=TOKENIZER.special_tokens["<|im_end|>"])
    path = sums(tmp_path / "sums.jsonl")
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"question": "1 + " * 90 + "1?", "answer": "91"}))
    config = Grpo(
        steps=1,
        groups=2,
        samples=2,
        max_tokens=8,
        data={"mine": ProblemSource(path=path)},
        system="Add.",
        base=str(model),
    )
    machine = Machine(workers=1, device="cpu", dtype="float32")
    metrics = grpo(Job(config, {}, out, 0, machine, Progress()))
    assert {"accuracy.mine.before", "accuracy.mine", "refused"} <= set(metrics)
    assert [one.row for one in read_jsonl(out / "refused.jsonl", Refused)] == [21]
    group = next(read_jsonl(out / "rollouts.jsonl", Group))
    assert group.problem.task == "mine"
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0, 0, 1, 1]

"""The stage of reinforcement learning from human feedback: the last assistant replies to prompts, and a reward model
says how people would like the replies (Ouyang et al. 2022, section 3.5).

It pays for moving away from where it started (`rlhf.kl`). Held-out prompts show whether the reward rises; whether the
replies get better only people can say, since a reward model that is optimised for long is hacked: read samples.jsonl.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crawltalk import recipe
from crawltalk.chat.messages import Message, text_of
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.model.config import read_config, shape_of
from crawltalk.model.hf import load_model
from crawltalk.model.transformer import Transformer
from crawltalk.models import model_folder
from crawltalk.posttraining.formats import read_conversations, read_preferences
from crawltalk.posttraining.reinforce import Group, reinforce
from crawltalk.posttraining.rollouts import PROMPT, EngineRollouts, rollout_backend, sampling_precision
from crawltalk.posttraining.tuning import (
    load_for_tuning,
    reinforcement_options,
    save_reinforced,
    starting_model,
)
from crawltalk.recipe.rlhf import rlhf_optim
from crawltalk.rewards.scored import RewardJudge
from crawltalk.run.stage import Job, Metrics
from crawltalk.train.ranks import Ranks

MEASURED, SAMPLED = 64, 4
"""Held-out prompts of an evaluation, at most, and replies that it keeps."""


def rlhf(job: Job[recipe.Rlhf]) -> Metrics:
    """Train; writes an HF folder, rollouts.jsonl, log.jsonl, and samples.jsonl with replies at several steps."""
    config, ranks = job.config, Ranks.join(job.machine, str(job.out))
    folder, chat = starting_model(job, "assistant")
    shape = shape_of(read_config(folder), folder)
    options = reinforcement_options(job, rlhf_optim(config, shape.width))
    asked = read_prompts(config.prompts)
    judge = RewardJudge.load(_reward_folder(job), messages=lambda problem: asked[problem.prompt])
    model = load_for_tuning(folder, config.lora, options, job.seed, ranks)
    precision = config.precision or sampling_precision(model, chat.tokenizer)
    job.progress.note(f"replies are sampled in {precision}")
    sampling_model = load_model(folder, device=str(ranks.device(job.machine.device)))
    backend = rollout_backend(
        sampling_model, precision, config.groups * config.samples, PROMPT + config.max_tokens
    )
    engine = Engine(sampling_model, chat.tokenizer, backend, chat)

    def prompt(problem: Problem) -> list[int]:
        return chat.encode_chat(asked[problem.prompt], add_generation_prompt=True)

    rollouts = EngineRollouts(engine, prompt, config.max_tokens)
    fitting = [one for text in asked if rollouts.fits(one := Problem(prompt=text, answer="", task="prompt"))]
    held_out = round(config.held_out * len(fitting))
    if not 0 < held_out < len(fitting):
        raise BadInput(
            f"of {len(asked)} prompts {len(fitting)} fit into the context, and {held_out} of these are held out: give "
            "more or shorter ones, or another share: --rlhf.held_out 0.1"
        )
    if left_out := len(asked) - len(fitting):
        job.progress.warn(f"{left_out} prompts leave no room for a reply and were left out")
    random.Random(f"held out {job.seed}").shuffle(fitting)
    measured, learned = fitting[:held_out][:MEASURED], fitting[held_out:]

    def problems(draw: int, _: Sequence[Group]) -> list[Problem]:
        return random.Random(f"{job.seed} {draw}").sample(learned, min(config.groups, len(learned)))

    def evaluate(done: int, model: Transformer) -> dict[str, Any]:
        engine.update_weights(model)
        sampling = Sampling(max_tokens=config.max_tokens, seed=job.seed)
        replies = engine.generate([prompt(problem) for problem in measured], sampling)
        texts = [chat.tokenizer.decode(ids) for ids in replies]
        verdicts = judge(measured, texts)
        rewards = [verdict.reward for verdict in verdicts if verdict.reward is not None]
        figures = {
            "reward.held_out": round(sum(rewards) / max(1, len(rewards)), 4),
            "length.held_out": round(sum(map(len, replies)) / len(replies), 1),
        }
        job.progress.note(f"step {done}: {', '.join(f'{key} {value:g}' for key, value in figures.items())}")
        samples = [
            {
                "step": done,
                "task": problem.task,
                "prompt": problem.prompt,
                "reply": text,
                "reward": verdict.reward,
            }
            for problem, text, verdict in list(zip(measured, texts, verdicts, strict=True))[:SAMPLED]
        ]
        return {**figures, "samples": samples}

    metrics = reinforce(
        model, rollouts, problems, judge, config, options, job.seed, evaluate=evaluate, ranks=ranks
    )
    ranks.leave()
    if ranks.rank > 0:
        return metrics
    last = save_reinforced(model, job, chat, folder, [prompt(problem) for problem in measured])
    return {**metrics, "reward.held_out": last["reward.held_out"]}


def read_prompts(paths: Sequence[str]) -> Mapping[str, list[Message]]:
    """The prompts of files of preferences or conversations: what they say -> the messages before the last reply. Raises
    MissingInput for a missing file, BadInput for one without prompts.
    """
    prompts = dict[str, list[Message]]()
    for path in paths:
        if not Path(path).exists():
            raise MissingInput(f"{path} does not exist; give a file of preferences: --rlhf.prompts FILE")
        found = [item.messages for row in read_preferences(path) for item in row.items]
        if not found:
            told = (item.messages for row in read_conversations(path) for item in row.items)
            found = [messages[:-1] for messages in told if messages[-1].role == "assistant"]
        found = [messages for messages in found if messages]
        if not found:
            raise BadInput(f"{path} has no prompts: its rows are neither preferences nor conversations")
        prompts |= {_written(messages): messages for messages in found}
    return prompts


def _written(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return text_of(messages[0])
    return "\n\n".join(f"{message.role}: {text_of(message)}" for message in messages)


def _reward_folder(job: Job[recipe.Rlhf]) -> Path:
    if job.config.reward:
        return model_folder(job.config.reward, prefer=("reward",))
    if "reward" not in job.models.values():
        raise MissingInput(
            "rlhf needs a reward model: train one with --reward.data FILE, or name one with --rlhf.reward FOLDER"
        )
    return job.model("reward")

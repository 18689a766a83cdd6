"""The stage of supervised fine-tuning."""

import dataclasses
import json
from pathlib import Path

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.documents import write_documents
from crawltalk.model.hf import load_model, save_model
from crawltalk.posttraining.sft import sft
from crawltalk.recipe import Machine, Optim, Sft, SftFile
from crawltalk.run.stage import Job, Progress
from support.corpora import documents
from support.engines import SHAPE, TOKENIZER
from support.models import random_model

NO_TASKS = dict.fromkeys(("flagship", "refusal", "tail", "arithmetic", "spelling", "identity"), 0)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_model_learns_a_file_of_ones_own_and_the_log_has_its_validation_loss_and_samples(tmp_path):
    answers = {"the cat?": "the", "the dog?": "no"}
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in [*answers.items()] * 40
    ]
    rows[2]["messages"][1]["content"] = ""
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = {name: tmp_path / name for name in ("pretrain", "tokenizer", "tokens", "data")}
    for folder in inputs.values():
        folder.mkdir()
    for name in ("tokenizer", "pretrain"):
        ChatRenderer(TOKENIZER).save(inputs[name])
    shape = dataclasses.replace(SHAPE, context=64)
    save_model(random_model(shape), inputs["pretrain"], eos=TOKENIZER.eot)
    (inputs["tokens"] / "documents.jsonl").write_text("")
    write_documents(inputs["data"] / "documents-00000.parquet", documents())
    config = Sft(
        optim=Optim(muon_lr=0.02, adamw_lr=0.01),
        tasks=NO_TASKS,
        data={"mine": SftFile(path=str(tmp_path / "mine.jsonl"))},
        epochs=10,
        batch_tokens=512,
        prompts=("the cat?",),
        validation=0.1,
    )
    out, machine = tmp_path / "sft", Machine(workers=1, device="cpu", dtype="float32")
    out.mkdir()
    job = Job(config, inputs, out, 0, machine, Progress(), {"pretrain": "base"})
    metrics = sft(job)
    evaluated = [row for row in lines(out / "log.jsonl") if "val_loss.mine" in row]
    losses = [row["val_loss.mine"] for row in evaluated]
    assert losses[-1] < 0.5 < losses[0]
    assert (metrics["val_loss.mine"], metrics["refused"]) == (losses[-1], 1)
    assert len(evaluated) >= 10
    samples = lines(out / "samples.jsonl")
    assert len(samples) == 4 * len(evaluated)
    assert samples[-4]["reply"] == "the"
    assert {one["source"] for one in samples} == {"prompts", "mine.jsonl"}
    assert all(one["reply"] == one["expected"] for one in samples[-3:])
    assert [(row["row"], row["file"]) for row in lines(out / "refused.jsonl")] == [
        (3, str(tmp_path / "mine.jsonl"))
    ]
    assert len(lines(out / "conversations.jsonl")) == 79 - 8
    assert load_model(out).shape == shape

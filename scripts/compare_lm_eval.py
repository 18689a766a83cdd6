"""Our evaluation against lm-evaluation-harness on the same model and local files, item by item.

    python scripts/compare_lm_eval.py MODEL arc_challenge=FILE exact_match=FILE --limit 250 [--server URL]

Needs `pip install lm_eval[hf,api]`. The harness reads the questions from a file that this script writes, by the
templates of its own tasks. Without `--server` it computes with transformers (backend `hf`); with the address of
`crawltalk serve MODEL` it asks that server (backend `local-completions`).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import lm_eval
import yaml
from lm_eval.tasks import TaskManager

from crawltalk.engine import load_engine
from crawltalk.evals.results import means
from crawltalk.evals.standard import STANDARD, Question, ask, read_questions

LISTED = "".join(f"{letter}. {{{{choices[{index}]}}}}\n" for index, letter in enumerate("ABCDE"))
CHOICES = {"output_type": "multiple_choice", "doc_to_target": "{{right}}"}
TEMPLATES = {
    "arc_challenge": {
        **CHOICES,
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "commonsense_qa": {
        **CHOICES,
        "doc_to_text": "Question: {{question.strip()}}\n" + LISTED + "Answer:",
        "doc_to_choice": list("ABCDE"),
        "metric_list": [{"metric": "acc"}],
    },
    "exact_match": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 32},
        "filter_list": [
            {"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
        ],
        "metric_list": [{"metric": "exact_match"}],
    },
}
"""As in the harness's own YAML files of 2025; `exact_match` has no namesake there."""


def their_scores(
    model: str, context: int, tasks: dict[str, list[Question]], server: str | None
) -> dict[str, dict[str, float]]:
    """Task -> metric -> score, as the harness computes them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, questions in tasks.items():
            data = Path(folder, f"{name}.jsonl")
            rows = [
                {
                    "question": question.text,
                    "choices": question.choices,
                    "right": question.choices.index(question.answer) if question.choices else 0,
                    "answer": question.answer,
                }
                for question in questions
            ]
            data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            described = {
                "task": f"ours_{name}",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(data)}},
                "test_split": "test",
                **TEMPLATES[name],
            }
            Path(folder, f"{name}.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
        shared = {"tokenizer": model, "max_length": context}
        if server:
            backend, arguments = (
                "local-completions",
                {
                    **shared,
                    "model": Path(model).name,
                    "base_url": f"{server}/v1/completions",
                    "tokenizer_backend": "huggingface",
                    "num_concurrent": 4,
                },
            )
        else:
            backend, arguments = "hf", {**shared, "pretrained": model, "dtype": "float32", "device": "cpu"}
        manager = TaskManager(include_path=folder, include_defaults=False)
        found = lm_eval.simple_evaluate(
            model=backend,
            model_args=arguments,
            tasks=[f"ours_{name}" for name in tasks],
            task_manager=manager,
            batch_size=1 if server else 8,
            num_fewshot=0,
            bootstrap_iters=0,
        )
    return {
        name: {
            metric.partition(",")[0]: value
            for metric, value in found["results"][f"ours_{name}"].items()
            if isinstance(value, float) and "stderr" not in metric
        }
        for name in tasks
    }


def main() -> None:
    """Print both figures of each metric, and their difference in points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="+", help="TASK=FILE")
    parser.add_argument("--limit", type=int, default=250)
    parser.add_argument("--server", help="such as http://127.0.0.1:8000")
    options = parser.parse_args()
    engine = load_engine(options.model)
    tasks: dict[str, list[Question]] = {}
    ours: dict[str, dict[str, float]] = {}
    for name, _, path in (task.partition("=") for task in options.tasks):
        read = read_questions(Path(path), choices=STANDARD[name].extract is None)
        questions = [question for question in read if isinstance(question, Question)][: options.limit]
        start = time.process_time()
        asked = ask(engine, name, questions)
        fit = {result.id for result in asked.results}
        tasks[name] = [question for question in questions if question.id in fit]
        ours[name] = {row.metric: row.score for row in means(asked.results)}
        print(f"{name}: {len(fit)} questions, {time.process_time() - start:.0f} CPU seconds", flush=True)
    start = time.process_time()
    theirs = their_scores(options.model, engine.context, tasks, options.server)
    print(f"lm-evaluation-harness: {time.process_time() - start:.0f} CPU seconds of this process")
    for name, metrics in theirs.items():
        for metric, value in metrics.items():
            points = 100 * (ours[name][metric] - value)
            print(
                f"{name} {metric}: ours {ours[name][metric]:.4f}, lm-eval {value:.4f}, {points:+.2f} points"
            )


if __name__ == "__main__":
    main()

"""lm-evaluation-harness: standard tasks over local files, by its own code, beside `crawltalk eval` on the same items.

It asks our server for log-probabilities and completions (`local-completions`), or reads the model's folder with
transformers (`hf`). Prompts and metrics of a task are those of its namesake there. Nothing is downloaded: the questions
are written out for it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.printable import printable
from crawltalk.evals.results import Result
from crawltalk.evals.standard import STANDARD, Question
from crawltalk.judges.environment import Environment
from crawltalk.judges.process import Ended, environment, run
from crawltalk.judges.report import Part, Verdict, part_of
from crawltalk.judges.served import Served
from crawltalk.redteam.frame import Outcome

_LISTED = "".join(f"{letter}. {{{{choices[{index}]}}}}\n" for index, letter in enumerate("ABCDE"))
_FOUR = _LISTED.partition("E.")[0]
_CHOICE: dict[str, object] = {"output_type": "multiple_choice", "doc_to_target": "{{right}}"}
_BY_TEXT: dict[str, object] = {
    **_CHOICE,
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
_TRUTHFULQA: dict[str, object] = {
    **_BY_TEXT,
    "doc_to_text": "Q: {{question}}\nA:",
    "metric_list": [{"metric": "acc"}],
}
TASKS: dict[str, dict[str, object]] = {
    "arc_challenge": _BY_TEXT,
    "arc_easy": _BY_TEXT,
    "commonsense_qa": {
        **_CHOICE,
        "doc_to_text": "Question: {{question.strip()}}\n" + _LISTED + "Answer:",
        "doc_to_choice": list("ABCDE"),
        "metric_list": [{"metric": "acc"}],
    },
    "mmlu": {
        **_CHOICE,
        "doc_to_text": "The following are multiple choice questions (with answers)"
        "{% if subject %} about {{subject}}{% endif %}.\n\n{{question.strip()}}\n" + _FOUR + "Answer:",
        "doc_to_choice": list("ABCD"),
        "metric_list": [{"metric": "acc"}],
    },
    "truthfulqa": _TRUTHFULQA,
    "truthfulqa_mc2": _TRUTHFULQA,
    "gsm8k_last_number": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 256},
        "filter_list": [
            {
                "name": "flexible-extract",
                "filter": [
                    {
                        "function": "regex",
                        "group_select": -1,
                        "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)",
                    },
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [
            {
                "metric": "exact_match",
                "ignore_case": True,
                "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"],
            }
        ],
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
"""As in the harness's own files of 2025: `gsm8k_last_number` is the `flexible-extract` of its gsm8k, `truthfulqa` and
`truthfulqa_mc2` its truthfulqa_mc1 and truthfulqa_mc2 without six solved examples, and `exact_match` has no namesake
there.
"""
_FUNCTIONS = {"truthfulqa_mc2": "lm_eval.tasks.truthfulqa.utils.process_results_mc2"}
"""What scores a question there, where no metric by a name does."""
SLIGHT = 0.01
"""Scores that are no further apart count as the same: MC2 is a share of probabilities, of which digits differ."""
_PREFIX = "ours_"


class Sample(msgspec.Struct):
    """A row of the harness's samples."""

    doc_id: int
    acc: float | None = None
    acc_norm: float | None = None
    exact_match: float | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Metric -> from 0 to 1."""
        found = {"acc": self.acc, "acc_norm": self.acc_norm, "exact_match": self.exact_match}
        return {name: float(value) for name, value in found.items() if value is not None}


def write_tasks(folder: Path, questions: Mapping[str, Sequence[Question]]) -> None:
    """Write the questions, and the files that tell the harness of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in questions.items():
        data = (folder / f"{name}.jsonl").resolve()
        write_jsonl(
            data,
            [
                {
                    "question": row.text,
                    "choices": row.choices,
                    "right": row.choices.index(row.answer) if row.choices else 0,
                    "answer": row.answer,
                    "subject": row.subject.replace("_", " "),
                }
                | ({"mc2_targets": {"labels": _labels(row)}} if row.true else {})
                for row in rows
            ],
        )
        described = {
            "task": _PREFIX + name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            **TASKS[name],
        }
        text = json.dumps(described)  # JSON is YAML
        if name in _FUNCTIONS:
            text = f'{text[:-1]}, "process_results": !function "{_FUNCTIONS[name]}"}}'
        write_atomically(folder / f"{name}.yaml", text.encode())


def _labels(question: Question) -> list[int]:
    """1 for each true choice."""
    return [int(place in question.true) for place in range(len(question.choices))]


def scan(
    judge: Environment,
    model: Served | Path,
    tokenizer: Path,
    names: Sequence[str],
    folder: Path,
    *,
    context: int,
    seconds: float,
) -> tuple[Ended, list[str]]:
    """Run the harness on a server, or on a folder with transformers, over tasks that `write_tasks` has written to
    FOLDER/tasks, and say how it ended and by which command.
    """
    for name in names:
        for earlier in _samples(folder, name):
            earlier.unlink()
    shared = {"tokenizer": str(tokenizer.resolve()), "max_length": context}
    if isinstance(model, Path):
        backend, batch = "hf", "8"
        arguments = {**shared, "pretrained": str(model.resolve()), "dtype": "float32"}
    else:
        backend, batch = "local-completions", "1"
        arguments = {
            **shared,
            "model": model.name,
            "base_url": f"{model.origin}/v1/completions",
            "tokenizer_backend": "huggingface",
            "num_concurrent": 4,
        }
    command = [
        *(str(judge.python), "-m", "lm_eval", "run", "--model", backend),
        *("--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())),
        *("--tasks", ",".join(_PREFIX + name for name in names)),
        *("--include_path", str((folder / "tasks").resolve()), "--batch_size", batch, "--num_fewshot", "0"),
        *("--device", "cpu"),
        *("--output_path", str((folder / "results").resolve()), "--log_samples"),
    ]
    variables = environment(folder, online=False, OPENAI_API_KEY="none")
    return run(
        command, folder=folder, log=folder / "lm_eval.log", seconds=seconds, variables=variables
    ), command


def read(folder: Path, name: str) -> dict[int, dict[str, float]]:
    """Number of a question -> metric -> score; nothing if there is none. Raises BadInput."""
    rows = [row for path in _samples(folder, name) for row in read_jsonl(path, Sample)]
    if rows and not rows[0].scores:
        raise BadInput(f"the samples of {name} in {folder} have none of its metrics; lm-eval 0.4.13 has them")
    if STANDARD[name].several:  # there it is called acc, too
        return {row.doc_id: {STANDARD[name].metric: row.scores["acc"]} for row in rows}
    return {row.doc_id: row.scores for row in rows}


def _samples(folder: Path, name: str) -> list[Path]:
    """By the date behind the name, as one task's name may begin with another's."""
    return sorted((folder / "results").rglob(f"samples_{_PREFIX}{name}_[0-9]*.jsonl"))


def compare(
    name: str, theirs: Mapping[int, Mapping[str, float]], ours: Sequence[Result]
) -> tuple[Part, list[Verdict]]:
    """A part for a task: hits are right answers, each item by both; of MC2 those of which the true choices have most of
    the probability. `ours`: in the order of the questions.
    """
    metric = STANDARD[name].metric
    verdicts = [
        Verdict(
            part=name,
            attempt=result.id,
            theirs=theirs[number][metric] > 0.5 if number in theirs else None,
            ours=Outcome.SUCCESS if result.scores[metric] > 0.5 else Outcome.FAIL,
            reason="" if number in theirs else "lm-eval has no result",
            reply=printable(result.reply, 300),
        )
        for number, result in enumerate(ours)
    ]
    part = part_of(name, verdicts)
    both = [(theirs[number], one.scores) for number, one in enumerate(ours) if number in theirs]
    for key in both[0][0] if both else ():
        part.figures[f"{key}, lm-eval"] = round(sum(row[key] for row, _ in both) / len(both), 4)
        part.figures[f"{key}, crawltalk"] = round(sum(row[key] for _, row in both) / len(both), 4)
        part.figures[f"{key}, items that differ"] = sum(
            abs(row[key] - own[key]) > SLIGHT for row, own in both
        )
    return part, verdicts

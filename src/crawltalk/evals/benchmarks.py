"""What standard benchmarks say of a model: scores with intervals, centred on chance, and how many of the questions
stand in what it was trained on.

FOLDER/benchmarks.json         a `Benchmark` for each task and judge; the report shows those of RUN/benchmarks/STAGE
FOLDER/TASK.overlaps.jsonl     a `Contaminated` for each question that stands in the corpus or in fine-tuning
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.statistics import interval_of, mean_stderr
from crawltalk.evals.tuning_texts import texts_in, tuning_files
from crawltalk.models import place_of
from crawltalk.pipeline import BENCHMARKS
from crawltalk.retrieval.overlap import Overlap, ngram_of, overlap, overlaps_in, words_in

if TYPE_CHECKING:  # these load torch, which the report does not need
    from crawltalk.evals.standard import Question
    from crawltalk.retrieval.trace import TraceIndex

SUMMARY = f"{BENCHMARKS}.json"
OURS = "crawltalk"
"""The judge that `crawltalk eval` is."""
EXAMPLES = 20
"""Contaminated questions in the summary."""


class Measured(msgspec.Struct, kw_only=True):
    """A metric over some questions."""

    score: float
    stderr: float
    """Clustered by subject where there are some (Miller 2024, section 2.2)."""
    interval: tuple[float, float]
    """At 95 %: Wilson's, with as many independent questions as the standard error stands for."""
    n: int
    chance: float
    """What guessing scores: of choices of equal probability, the share of the right ones."""
    centred: float
    """(score - chance) / (1 - chance): 0 is guessing, 1 is all right (Li et al. 2024, DCLM's CORE; nanochat)."""


class Contaminated(msgspec.Struct, kw_only=True):
    """A question that stands in what the model was trained on."""

    question: str
    """Its identifier."""
    overlap: Overlap


class Contamination(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How many questions of a benchmark stand in the corpus of a run, or in what its assistant was fine-tuned on
    (`retrieval.overlap`).
    """

    corpus: str = ""
    """The fingerprint of the run's index, where that was searched."""
    searched: dict[str, int] = {}
    """Of fine-tuning: file of the run, such as sft/conversations.jsonl -> its lines."""
    ngram: int
    """Words one after the other that make a question contaminated."""
    questions: int
    too_short: int
    """Questions of fewer words, of which nothing is known; they count as clean."""
    contaminated: int
    examples: list[Contaminated]


class Benchmark(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A task, as one judge scored it."""

    task: str
    judge: str
    model: str
    """Stage of a run, or folder."""
    fingerprint: str = ""
    """Of the stage when it was measured."""
    data: str
    shots: int = 0
    chat: bool = False
    left_out: int = 0
    """Questions that do not fit into the model's context."""
    scores: dict[str, Measured]
    """Metric -> over all questions."""
    clean: dict[str, Measured] = {}
    """Over those that are contaminated neither way, where some are."""
    subjects: dict[str, dict[str, Measured]] = {}
    contamination: Contamination | None = None
    """By the corpus."""
    tuning: Contamination | None = None
    """By the conversations, preferences and prompts of fine-tuning and reinforcement."""


Scores = Sequence[Mapping[str, float]]
"""Metric -> score, of each question."""


def measured(questions: "Sequence[Question]", scores: Scores) -> dict[str, Measured]:
    """Each metric over the questions."""
    subjects = [question.subject for question in questions]
    clusters = subjects if len(set(subjects)) > 1 else ()
    chance = sum(max(1, len(one.true)) / len(one.choices) for one in questions if one.choices) / max(
        1, len(questions)
    )
    found = {}
    for metric in scores[0] if scores else ():
        values = [row[metric] for row in scores]
        mean, stderr = mean_stderr(values, clusters)
        low, high = interval_of(values, clusters)
        found[metric] = Measured(
            score=round(mean, 4),
            stderr=round(stderr, 4),
            interval=(round(low, 4), round(high, 4)),
            n=len(values),
            chance=round(chance, 4),
            centred=round((mean - chance) / (1 - chance), 4) if chance < 1 else 0.0,
        )
    return found


def benchmark(
    task: str,
    questions: "Sequence[Question]",
    scores: Scores,
    *,
    model: str,
    data: str,
    judge: str = OURS,
    shots: int = 0,
    chat: bool = False,
    left_out: int = 0,
    index: "TraceIndex | None" = None,
) -> tuple[Benchmark, list[Contaminated]]:
    """A task as a judge scored it, and its contaminated questions. `model`: as a person calls it. `index`: of the run
    that made it; without one nothing is known of its corpus. What its fine-tuning learned from lies in the run.
    """
    place = place_of(model)
    manifest = place[0].manifest(place[1]) if place else None
    row = Benchmark(
        task=task,
        judge=judge,
        model=place[1] if place else model,
        fingerprint=manifest.fingerprint if manifest else "",
        data=data,
        shots=shots,
        chat=chat,
        left_out=left_out,
        scores=measured(questions, scores),
    )
    pairs = list(zip(questions, scores, strict=True))
    subjects = list(dict.fromkeys(question.subject for question in questions))
    if len(subjects) > 1:
        row.subjects = {
            name: measured(*_split([pair for pair in pairs if pair[0].subject == name])) for name in subjects
        }
    found: list[Contaminated] = []
    if index is not None and place is not None:
        corpus = place[0].manifest("index")
        row.contamination, found = contamination(questions, index, corpus.fingerprint if corpus else "")
    if place is not None and (files := tuning_files(*place)):
        row.tuning, tuned = tuning_contamination(questions, files)
        found = [*found, *tuned]
    dirty = {one.question for one in found}
    clean = [pair for pair in pairs if pair[0].id not in dirty]
    if dirty and clean:
        row.clean = measured(*_split(clean))
    return row, found


def _split(pairs: "Sequence[tuple[Question, Mapping[str, float]]]") -> "tuple[list[Question], Scores]":
    return [question for question, _ in pairs], [scores for _, scores in pairs]


def contamination(
    questions: "Sequence[Question]", index: "TraceIndex", corpus: str = ""
) -> tuple[Contamination, list[Contaminated]]:
    """How many of the questions stand in the corpus, and which."""
    ngram = ngram_of([question.text for question in questions])
    found = [
        Contaminated(question=question.id, overlap=passage)
        for question in questions
        if (passage := overlap(index, question.text, ngram)) is not None
    ]
    return _summary(questions, ngram, found, corpus=corpus), found


def tuning_contamination(
    questions: "Sequence[Question]", files: Mapping[str, Path]
) -> tuple[Contamination, list[Contaminated]]:
    """The same of what fine-tuning learned from (`tuning_files`)."""
    ngram = ngram_of([question.text for question in questions])
    searched = dict.fromkeys(files, 0)

    def documents() -> Iterator[tuple[str, list[str]]]:
        for name, path in files.items():
            for number, texts in enumerate(texts_in(path), 1):
                searched[name] = number
                yield f"{name}, line {number}", texts

    passages = overlaps_in(documents(), [question.text for question in questions], ngram)
    found = [
        Contaminated(question=questions[number].id, overlap=passages[number]) for number in sorted(passages)
    ]
    return _summary(questions, ngram, found, searched=searched), found


def _summary(
    questions: "Sequence[Question]",
    ngram: int,
    found: list[Contaminated],
    *,
    corpus: str = "",
    searched: dict[str, int] | None = None,
) -> Contamination:
    return Contamination(
        corpus=corpus,
        searched=searched or {},
        ngram=ngram,
        questions=len(questions),
        too_short=sum(words_in(question.text) < ngram for question in questions),
        contaminated=len(found),
        examples=found[:EXAMPLES],
    )


def place_for(model: str) -> Path | None:
    """The folder for a model's benchmarks, where its run's report looks for them; None if it is of no run."""
    place = place_of(model)
    return place[0].path / BENCHMARKS / place[1] if place else None


def write_benchmark(folder: Path, row: Benchmark, found: Sequence[Contaminated]) -> None:
    """Write both files; other tasks and judges of the folder stay as they are. Raises BadInput for another file."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [
        one for one in read_benchmarks(folder / SUMMARY) if (one.task, one.judge) != (row.task, row.judge)
    ]
    if row.contamination is not None or row.tuning is not None:
        write_jsonl(folder / f"{row.task}.overlaps.jsonl", found)
    write_atomically(folder / SUMMARY, msgspec.json.format(msgspec.json.encode([*kept, row])))


def read_benchmarks(path: Path) -> list[Benchmark]:
    """The rows of benchmarks.json; none if it is not there. Raises BadInput if it is damaged."""
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Benchmark])
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path} is damaged ({error}); remove it, and run crawltalk eval again") from None

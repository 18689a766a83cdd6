"""The chapter on standard benchmarks: what `crawltalk eval` and `crawltalk judge lm-eval` left in the run's folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from crawltalk.core.charts import GREY, panels, svg
from crawltalk.evals.benchmarks import (
    OURS,
    SUMMARY,
    Benchmark,
    Contamination,
    Measured,
    read_benchmarks,
)
from crawltalk.pipeline import BENCHMARKS
from crawltalk.report.assistant import KINDS
from crawltalk.report.chapter import Chapter
from crawltalk.report.html import percent, table, text
from crawltalk.report.inputs import ReportJob, run_of
from crawltalk.run.manifest import Manifest, read_manifest

TITLES = {
    "mmlu": "MMLU",
    "arc_easy": "ARC-Easy",
    "arc_challenge": "ARC-Challenge",
    "truthfulqa": "TruthfulQA MC1",
    "truthfulqa_mc2": "TruthfulQA MC2",
    "gsm8k_last_number": "GSM8K",
    "commonsense_qa": "CommonsenseQA",
    "humaneval": "HumanEval",
    "exact_match": "questions of your own",
}
METRICS = {
    "acc": "likeliest choice",
    "acc_norm": "likeliest choice for its length",
    "mc2": "probability of the true choices",
    "exact_match": "the answer itself",
    "pass@1": "a program that passes all tests",
}
OLD = " *"
"""Marks what was measured on a model that the run does not have any more."""


def benchmarks(job: ReportJob) -> Chapter | None:
    """Scores with their intervals, centred on guessing, by whoever measured them; and what of it the corpus holds."""
    found = benchmarks_of(job.beside.get(BENCHMARKS))
    if not found:
        return None
    made = {name: read_manifest(folder) for name, folder in job.inputs.items()}
    rows = [row for row in found if row.scores]
    unscored = "".join(
        f"<p>{text(_title(row))} of “{text(_model(row, made))}” is left out: what {text(row.judge)} wrote has no "
        "scores.</p>"
        for row in found
        if not row.scores
    )
    if not rows:
        return Chapter("None of the benchmarks that this run's models took has a score.", reading=unscored)
    old = [row for row in rows if is_old(row, made)]
    reading = ""
    if old:
        again = ", ".join(dict.fromkeys(f"crawltalk eval {run_of(job)}/{row.model}" for row in old))
        reading = (
            f"<p>{OLD.strip()} was measured before this model was trained again, and is not about this one; measure it "
            f"again with <code>{text(again)}</code>.</p>"
        )
    return Chapter(
        _sentence([row for row in rows if row not in old] or rows),
        figure=_chart(rows, made),
        reading=scores_table([(_model(row, made), row) for row in rows])
        + reading
        + unscored
        + "<p>Centred is (score - guessing) / (1 - guessing): 0 is a guess, 1 is everything right, and scores of "
        "benchmarks with more or fewer choices can be compared, as in CORE of DCLM and nanochat. The intervals are "
        "Wilson's at 95&nbsp;%; where questions come by subjects, the standard error is clustered by these.</p>",
        details=[
            ("Questions that stand in what the models were trained on", _contamination(rows, made)),
            ("By subject", _subjects(rows, made)),
        ],
        commands=[
            f"crawltalk eval {run_of(job)} --tasks mmlu --data FOLDER",
            f"crawltalk judge lm-eval {run_of(job)} --only mmlu --data FOLDER",
        ],
    )


def benchmarks_of(folder: Path | None) -> list[Benchmark]:
    """All rows below the folder, those of one task beside each other."""
    paths = sorted(folder.glob(f"**/{SUMMARY}")) if folder else []
    rows = [row for path in paths for row in read_benchmarks(path)]
    return sorted(rows, key=lambda row: (list({**TITLES, row.task: ""}).index(row.task), row.task))


def is_old(row: Benchmark, made: Mapping[str, Manifest | None]) -> bool:
    """Whether the stage has been built otherwise since."""
    manifest = made.get(row.model)
    return manifest is None or manifest.fingerprint != row.fingerprint


def _chart(rows: Sequence[Benchmark], made: Mapping[str, Manifest | None]) -> str:
    """The first metric of each, with its interval and what a guess has."""
    shown = [(row, next(iter(row.scores.values()))) for row in reversed(rows) if row.judge == OURS]
    shown = shown or [(row, next(iter(row.scores.values()))) for row in reversed(rows)]
    places = range(len(shown))
    figure, (axes,) = panels([("share that is right", "")])
    figure.set_figheight(1.0 + 0.32 * len(shown))
    sides = [[one.score - one.interval[0], one.interval[1] - one.score] for _, one in shown]
    axes.errorbar(
        [one.score for _, one in shown], places, xerr=list(zip(*sides, strict=True)), fmt="o", ms=5, lw=1.6
    )
    axes.plot([one.chance for _, one in shown], places, "|", color=GREY, markersize=13, markeredgewidth=1.6)
    axes.set_yticks(places, [f"{_title(row)}, {_model(row, made)}" for row, _ in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(0.0, None)
    return (
        f"<figure>{svg(figure)}<figcaption>Points are scores with their intervals at 95&nbsp;%, grey strokes what a "
        "guess has.</figcaption></figure>"
    )


def scores_table(rows: Iterable[tuple[str, Benchmark]]) -> str:
    """A line for each metric: (what the model is called, what was measured)."""
    return table(
        ("benchmark", "model", "score, 95 %", "guessing", "centred", "questions", "right is", "scored by"),
        [
            (
                _title(row),
                model,
                _between(one),
                round(one.chance, 2),
                round(one.centred, 2),
                one.n,
                METRICS.get(metric, metric),
                row.judge if row.judge != OURS else "crawltalk",
            )
            for model, row in rows
            for metric, one in row.scores.items()
        ],
    )


def _title(row: Benchmark) -> str:
    shots = f", {row.shots} solved examples" if row.shots else ""
    return TITLES.get(row.task, row.task) + shots + (", as a chat" if row.chat else "")


def _model(row: Benchmark, made: Mapping[str, Manifest | None]) -> str:
    return KINDS.get(row.model, row.model) + (OLD if is_old(row, made) else "")


def _between(one: Measured) -> str:
    return f"{one.score:.2f} ({one.interval[0]:.2f} to {one.interval[1]:.2f})"


def _sentence(rows: Sequence[Benchmark]) -> str:
    """Of the last model: where it is beyond guessing."""
    stages = [row.model for row in rows]
    last = max(rows, key=lambda row: list(KINDS).index(row.model) if row.model in KINDS else len(KINDS)).model
    mine = [row for row in rows if row.model == last]
    mine = [row for row in mine if row.judge == OURS] or mine
    tasks = list(dict.fromkeys(row.task for row in mine))
    scored = [(TITLES.get(row.task, row.task), one) for row in mine for one in row.scores.values()]
    beyond = {name for name, one in scored if one.interval[0] > one.chance}
    name, best = max(scored, key=lambda pair: pair[1].centred)
    models = len(set(stages))
    return (
        f"{models} {'model' if models == 1 else 'models'} of this run took benchmarks that others use. The last of "
        f"them, “{text(KINDS.get(last, last))}”, is better than guessing beyond chance on {len(beyond)} of "
        f"{len(tasks)}; it does best on {text(name)}: {percent(best.score)}, where a guess has {percent(best.chance)}."
    )


def _contamination(rows: Sequence[Benchmark], made: Mapping[str, Manifest | None]) -> str:
    known = [row for row in rows if row.contamination is not None or row.tuning is not None]
    if not known:
        return ""
    corpus = made.get("index")
    lines, examples = [], []
    for row in known:
        found = [one for one in (row.contamination, row.tuning) if one is not None]
        other = row.contamination and (corpus is None or corpus.fingerprint != row.contamination.corpus)
        metric, clean = next(iter(row.clean.items()), ("", None))
        lines.append(
            (
                _title(row),
                _model(row, made),
                row.judge,
                _found(row.contamination) + (" of an earlier corpus" if other else ""),
                _found(row.tuning),
                found[0].ngram,
                found[0].too_short,
                _between(clean) if clean else "-",
                METRICS.get(metric, metric),
            )
        )
        examples += [
            (
                _title(row),
                one.question,
                one.overlap.text,
                one.overlap.url or one.overlap.id,
                one.overlap.documents,
            )
            for part in found
            for one in part.examples
        ]
    heads = ("benchmark", "model", "scored by", "in the corpus", "in fine-tuning")
    listed = table(
        ("benchmark", "question", "what stands there", "in", "documents"), list(dict.fromkeys(examples))
    )
    searched = {name: count for row in known if row.tuning for name, count in row.tuning.searched.items()}
    return (
        "<p>A question counts if so many of its words stand one after the other in a document of the corpus, letter by "
        "letter (as in GPT-3's appendix C; found by the index that <code>crawltalk trace</code> reads), or in a "
        "conversation, a preference or a prompt that the assistant was trained on after its pretraining"
        + (
            f" ({text(', '.join(f'{count:,} in {name}' for name, count in searched.items()))})"
            if searched
            else ""
        )
        + ".</p>"
        + table(
            (*heads, "words in a row", "too short to tell", "score of the others, 95 %", "right is"), lines
        )
        + (listed if examples else "")
    )


def _found(one: Contamination | None) -> str:
    return f"{one.contaminated} of {one.questions}" if one else "-"


def _subjects(rows: Sequence[Benchmark], made: Mapping[str, Manifest | None]) -> str:
    """A line a subject, a column a model."""
    listed = [row for row in rows if row.judge == OURS and row.subjects]
    names = sorted({(row.task, subject) for row in listed for subject in row.subjects})
    lines = [
        [
            *(TITLES.get(task, task), subject.replace("_", " ")),
            *(_subject(row, subject) if row.task == task else "-" for row in listed),
        ]
        for task, subject in names
    ]
    heads = [f"{_title(row)}, {_model(row, made)}: score, 95 % of questions" for row in listed]
    return table(("benchmark", "subject", *heads), lines) if lines else ""


def _subject(row: Benchmark, subject: str) -> str:
    one = next(iter(row.subjects.get(subject, {}).values()), None)
    return f"{_between(one)} of {one.n}" if one else "-"

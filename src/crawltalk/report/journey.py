"""The beginning of the report, the whole run in a sentence, and its end: what it took, what it was made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from crawltalk.report.chapter import Chapter
from crawltalk.report.html import bars, table, text, tiles
from crawltalk.report.inputs import ReportJob, manifest_of, run_of
from crawltalk.report.lineage import graph
from crawltalk.run.manifest import Manifest

CORE_HOUR = 0.04
"""Dollars of an hour of one core: about what clouds ask for."""
_ABSENT = "-"


def summary(job: ReportJob) -> str:
    """The whole run in one sentence, and in five figures."""
    manifests = _manifests(job)
    data, base = manifests["data"].metrics, manifest_of(job.model("base")).metrics
    minutes = sum(manifest.seconds for manifest in manifests.values()) / 60
    figures = [
        (data.get("pages", 0), "raw pages"),
        (data.get("documents", 0), "clean documents"),
        (base.get("parameters", 0), "parameters"),
        (base.get("tokens", 0), "training tokens"),
        (f"{minutes:.1f} min", "all stages"),
    ]
    last = list(job.models)[-1]
    return (
        f'<p class="lead">{text(data.get("pages", 0))} raw web pages became {text(data.get("documents", 0))} clean '
        f"documents. From them a model of {text(base.get('parameters', 0))} parameters learned to write, and then to "
        f"answer{', by practice as well' if (job.inputs[last] / 'rollouts.jsonl').exists() else ''}. It took "
        f"{minutes:.1f} minutes on this machine: {text(manifests['evals'].host)}.</p>" + tiles(figures)
    )


def costs(job: ReportJob) -> Chapter:
    """Time, CPU, memory, operations, energy and money of each stage."""
    manifests = _manifests(job)
    cpu = sum(m.cpu_seconds for m in manifests.values())
    most, heaviest = max((m.cpu_seconds, name) for name, m in manifests.items())
    joules = [m.joules for m in manifests.values() if m.joules is not None]
    flop = sum(float(m.metrics.get("flop", 0)) for m in manifests.values())
    paid = [m.dollars for m in manifests.values() if m.dollars is not None]
    sentence = (
        f"All stages together took {cpu:,.0f} CPU seconds, most of them in {text(heaviest)} ({most:,.0f}). At "
        f"{CORE_HOUR} dollars an hour of a core that is {_money(cpu / 3600 * CORE_HOUR)}"
    )
    if paid:
        sentence += f"; at the price that the recipe names, {_money(sum(paid))}"
    sentence += f". The pretraining took {flop:.2g} floating-point operations" if flop else ""
    sentence += (
        f", and the processors used {sum(joules):,} joules."
        if joules
        else "; the energy is not known: this machine shows no counters."
    )
    rows = [
        (
            name,
            round(m.seconds, 1),
            round(m.cpu_seconds, 1),
            round(m.peak_memory_bytes / 1e6),
            m.joules if m.joules is not None else _ABSENT,
            m.dollars if m.dollars is not None else _ABSENT,
            m.attempts,
        )
        for name, m in manifests.items()
    ]
    columns = ("stage", "seconds", "CPU seconds", "peak memory, MB", "joules", "dollars", "attempts")
    return Chapter(
        sentence,
        figure=bars(
            [(name, m.cpu_seconds, f"{m.cpu_seconds:,.1f} s") for name, m in manifests.items()],
            max(most, 1e-9),
            "CPU seconds of each stage.",
        ),
        details=[("Time, memory, energy and money", table(columns, rows))],
        commands=[f"crawltalk status {run_of(job)}"],
    )


def origin(job: ReportJob) -> Chapter:
    """From which inputs and recipe each stage was made, and what a user of the model and of the data should know."""
    manifests = _manifests(job)
    last = manifests["evals"]
    rows = [
        (
            name,
            m.fingerprint,
            ", ".join(f"{key} {value[:8]}" for key, value in m.inputs.items()) or "-",
            m.started,
            len(m.files),
        )
        for name, m in manifests.items()
    ]
    versions = ", ".join(f"{name} {value}" for name, value in last.versions.items())
    return Chapter(
        "Every stage knows what it was made from, so an answer of the assistant can be followed back to the page that "
        "taught it, and a change of one setting builds only what depends on it.",
        figure=graph({name: list(m.inputs) for name, m in manifests.items()}),
        details=[
            ("Model card", _model_card(job, manifests)),
            ("Data card", _data_card(job, manifests)),
            (
                "Fingerprints and versions",
                table(("stage", "fingerprint", "made from", "started", "files"), rows)
                + f'<p class="soft">{text(last.host)}; {text(versions)}</p>',
            ),
        ],
        commands=[
            f"crawltalk show {run_of(job)}",
            f'crawltalk trace "a sentence of an answer" --model {run_of(job)}',
        ],
    )


def _manifests(job: ReportJob) -> dict[str, Manifest]:
    return {name: manifest_of(folder) for name, folder in job.inputs.items()}


def _money(dollars: float) -> str:
    return f"{dollars:,.2f} dollars" if dollars >= 1 else f"{100 * dollars:.2g} cents"


def _model_card(job: ReportJob, manifests: Mapping[str, Manifest]) -> str:
    """What a user of the assistant should know (Mitchell et al. 2019, section 4)."""
    base, evals = manifest_of(job.model("base")), manifests["evals"].metrics
    trainings = [name for name, kind in job.models.items() if kind == "assistant"]
    facts: list[tuple[str, str]] = [
        ("parameters", f"{base.metrics.get('parameters', 0):,}"),
        ("context", f"{base.config.get('model.context', '')} tokens"),
        ("pretrained on", f"{base.metrics.get('tokens', 0):,} tokens of the documents below"),
        ("then trained by", ", ".join(trainings)),
        (
            "meant for",
            "studying how language models come to be, and answering about the pages that it was made from",
        ),
        ("not meant for", "advice, decisions about people, or facts that nobody checks"),
        ("form of the weights", "safetensors, with tokenizer.json and a chat template"),
    ]
    limits: list[tuple[str, str]] = [
        (about, f"{float(evals[name]):.0%}")
        for name, about in (
            ("invented", "makes something up about what it has never met"),
            ("heldout", "declines titles that no stage has seen"),
            ("arithmetic", "calculates small numbers rightly"),
        )
        if name in evals
    ]
    return table(("", ""), [*facts, *limits])


def _data_card(job: ReportJob, manifests: Mapping[str, Manifest]) -> str:
    """What a user of the documents should know."""
    metrics = manifests["data"].metrics
    credits = _text(job.inputs["crawl"] / "CREDITS.txt")
    facts: Sequence[tuple[str, str]] = [
        ("documents", f"{metrics.get('documents', 0):,} of {metrics.get('pages', 0):,} pages"),
        ("characters", f"{metrics.get('characters', 0):,}"),
        (
            "steps",
            "URL filter, main text, language, quality, near-duplicates, personal data (FineWeb's recipe)",
        ),
        (
            "form",
            "Parquet, with the URL, date and identifier of each document; what was dropped, with its reason",
        ),
        ("rights", credits or "those of the pages; ask their owners"),
    ]
    return table(("", ""), facts)


def _text(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split()) if path.exists() else ""

"""The sections of the report, in the order of the stages."""

import json
import shlex
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from crawltalk import recipe
from crawltalk.report.html import command, conversation, lines_figure, table, text, tiles
from crawltalk.run.manifest import Manifest, read_manifest
from crawltalk.run.stage import Job

ReportJob = Job[recipe.Report]


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None, folder  # inputs are finished stages
    return manifest


def _rows(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def _run(job: ReportJob) -> str:
    return str(job.inputs["evals"].parent)  # earlier stages may be borrowed


def _clip(value: str, length: int = 600) -> str:
    return value if len(value) <= length else value[:length] + " ..."


def journey(job: ReportJob) -> str:
    """Time, CPU and memory of each stage."""
    manifests = {name: _manifest(folder) for name, folder in job.inputs.items()}
    data, base = manifests["data"].metrics, _manifest(job.model("base")).metrics
    seconds = sum(manifest.seconds for manifest in manifests.values())
    rows = [
        (name, round(m.seconds, 1), round(m.cpu_seconds, 1), round(m.peak_memory_bytes / 1e6), m.attempts)
        for name, m in manifests.items()
    ]
    head = tiles(
        [
            (data.get("pages", 0), "raw pages"),
            (data.get("documents", 0), "clean documents"),
            (base.get("parameters", 0), "parameters"),
            (base.get("tokens", 0), "training tokens"),
            (f"{seconds / 60:.1f} min", "all stages"),
        ]
    )
    columns = ("stage", "seconds", "CPU seconds", "peak memory, MB", "attempts")
    return head + table(columns, rows) + command(f"crawltalk status {_run(job)}")


def tokenizer(job: ReportJob) -> str:
    """Figures of the tokenizer, and how it cuts a text."""
    from crawltalk.tokenizer import Tokenizer

    tokens = Tokenizer.load(job.inputs["tokenizer"])
    sample = _first_document(job)[:400]
    pieces = "".join(
        f'<span class="token">{escape(tokens.decode([token]))}</span>' for token in tokens.encode(sample)
    )
    metrics = _manifest(job.inputs["tokenizer"]).metrics
    mixture = _manifest(job.inputs["tokens"]).metrics
    return (
        table(
            ("figure", "value"),
            [*metrics.items(), *((f"mixture: {name}", value) for name, value in mixture.items())],
        )
        + f"<h3>How it cuts a text</h3><pre>{pieces}</pre>"
        + '<p><a href="tokens.html">Type your own text, and watch words being built</a></p>'
        + command(f'crawltalk tokens "..." --model {_run(job)}')
    )


def _first_document(job: ReportJob) -> str:
    from crawltalk.core.documents import read_documents

    return next(iter(read_documents(job.inputs["data"]))).text


def pretrain(job: ReportJob) -> str:
    """Loss curve and figures of pretraining."""
    rows = _rows(job.model("base") / "log.jsonl")
    losses = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "val_bpb" in row]
    curve = lines_figure(
        [("training loss", [row["step"] for row in losses], [row["loss"] for row in losses])],
        "step",
        "nats per token",
        "Loss on the training shards.",
    )
    held_out = lines_figure(
        [("validation", [row["step"] for row in evaluations], [row["val_bpb"] for row in evaluations])],
        "step",
        "bits per byte",
        "Bits per byte on documents that are not trained on.",
    )
    figures = table(("figure", "value"), list(_manifest(job.model("base")).metrics.items()))
    return curve + held_out + figures + command(f"crawltalk pretrain {_run(job)}")


def scaling(job: ReportJob) -> str | None:
    """Validation loss against compute, if small models were trained for it."""
    if "sweep" not in job.inputs:
        return None
    result = json.loads((job.inputs["sweep"] / "scaling.json").read_text(encoding="utf-8"))
    rows = result["models"]
    measured = _manifest(job.model("base")).metrics["val_bpb"]
    curve = lines_figure(
        [
            ("small models", [row["flop"] for row in rows], [row["bits_per_byte"] for row in rows]),
            (
                "predicted",
                [rows[-1]["flop"], result["flop"]],
                [rows[-1]["bits_per_byte"], result["predicted"]],
            ),
        ],
        "FLOP",
        "bits per byte",
        "Small models on the same tokens; this run's own: "
        f"{result['predicted']} predicted, {measured} measured.",
        log_x=True,
    )
    return (
        curve
        + table(tuple(rows[0]), [tuple(row.values()) for row in rows])
        + command(f"crawltalk sweep {_run(job)}")
    )


def base_samples(job: ReportJob) -> str | None:
    """What the base model wrote while it was trained."""
    rows = _rows(job.model("base") / "samples.jsonl")
    if not rows:
        return None
    shown = "".join(
        f'<div class="label">step {text(row["step"])}, after {escape(row["prompt"])!r}</div>'
        f"<pre><b>{escape(row['prompt'])}</b>{escape(_clip(row['text']))}</pre>"
        for row in (*rows[:2], *rows[-4:])
    )
    intro = "<p>A base model continues internet documents; it does not answer. The first steps, and the last ones:</p>"
    beside = ""
    for row in _rows(job.inputs["evals"] / "side_by_side.jsonl"):
        replies = [_clip(reply, 200) for reply in row["replies"]]
        beside += table([f"{row['prompt']} ... ({index + 1})" for index in range(len(replies))], [replies])
    if beside:
        shown += (
            "<h3>Several samples of one prompt</h3>"
            f"<p>The model is a distribution: each sample is another document.</p>{beside}"
        )
    return intro + shown + command(f"crawltalk generate {shlex.quote(rows[0]['prompt'])} --model {_run(job)}")


def recall(job: ReportJob) -> str | None:
    """How recall grows with the number of times that a page was seen, and what the model makes up for pages that it
    never saw.
    """
    rows = _rows(job.inputs["evals"] / "recall.jsonl")
    if not rows:
        return None
    intro = (
        "<p>The base model gets the first tokens of a page and goes on. Pages that it read often it knows by "
        "heart; those after its cutoff it makes up, in the same tone.</p>"
    )
    curve = lines_figure(
        [("share of tokens", [row["times"] for row in rows], [row["share"] for row in rows])],
        "times that a page was seen in training",
        "share recalled",
        "Tokens that greedy decoding gets right.",
    )
    figures = table(
        (
            "times seen",
            "pages",
            "share of tokens recalled",
            "longest verbatim span, tokens",
            "share that stands on any page",
            "longest span of any page",
            "which page",
            "mean probability of what it says",
        ),
        [
            tuple(
                row[name]
                for name in ("times", "pages", "share", "longest", "traced", "quoted", "source", "confidence")
            )
            for row in rows
        ],
    )
    shown = "".join(
        f'<div class="label">seen {row["times"]:g} times</div>'
        f"<pre><b>{escape(row['prompt'])}</b>{escape(_clip(row['reply']))}</pre>"
        '<div class="label">the page</div>'
        f"<pre><b>{escape(row['prompt'])}</b>{escape(_clip(row['page']))}</pre>"
        for row in (rows[0], rows[-1])
    )
    return intro + curve + figures + shown + command(f"crawltalk show {_run(job)}/evals/recall.jsonl")


def factuality(job: ReportJob) -> str | None:
    """What both models know, decline and make up; whether agreement tells it; and the same questions with a page."""
    path = job.inputs["evals"] / "factuality.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    asked = [row for row in _rows(job.inputs["factuality"] / "questions.jsonl") if row["replies"]]
    elsewhere = _manifest(job.inputs["factuality"]).config.get(
        "base"
    )  # the model that was asked instead of the run's
    asker = Path(str(elsewhere)).name if elsewhere else "base model"
    pages = (
        "names that other documents mention often, that they mention rarely, and that are invented. What it has read "
        "is not known"
        if elsewhere
        else "pages that were read often, rarely and never; no stage has seen the latter. Without fine-tuning nothing "
        "is ever declined"
    )
    intro = (
        f"<p>The {escape(asker)} was asked about the pages, several times each. What it got right is taught as an "
        "answer, what it got wrong each time as something that the assistant does not know. Then both were asked "
        f"about {pages}.</p>"
    )
    columns = (
        "names mentioned" if elsewhere else "pages read",
        "model",
        "questions",
        "correct",
        "declined",
        "incorrect",
    )
    shares = ("questions", "correct", "declined", "incorrect")
    groups = table(
        columns,
        [
            (group["seen"], name, *(group[model][share] for share in shares))
            for group in result["groups"]
            for model, name in (("base", asker), ("assistant", "assistant"))
        ],
    )
    bins, points = result["reliability"], result["risk"]
    curve = lines_figure(
        [
            ("most frequent reply", [row["agreement"] for row in bins], [row["correct"] for row in bins]),
            ("as sure as right", [0, 1], [0, 1]),
        ],
        "share of samples that agree",
        "share that is right",
        f"Does agreement among the samples of the {asker} tell what it knows? Questions in each group: "
        f"{', '.join(str(row['questions']) for row in bins)}.",
    )
    tradeoff = lines_figure(
        [
            (asker, [row["coverage"] for row in points], [row["risk"] for row in points]),
            ("assistant", [result["assistant"]["coverage"]] * 2, [0, result["assistant"]["risk"]]),
        ],
        "share of questions answered",
        "share of the answers that are wrong",
        f"If the {asker} answered only where its samples agree; and the assistant, which decides by itself.",
    )
    searched = table(
        ("passage", *shares),
        [(way, *(row[name] for name in shares)) for way, row in result["searched"].items()],
    )
    examples = table(
        ("mentioned" if elsewhere else "read", "title", f"answers of the {asker}", "right", "then"),
        [
            (
                row["seen"],
                row["title"],
                _clip(" / ".join(row["replies"][:3]), 200),
                row["answer"],
                row["decision"],
            )
            for seen in ("often", "rarely", "never")
            for row in [row for row in asked if row["seen"] == seen and row["split"] == "train"][:3]
        ],
    )
    return (
        intro
        + groups
        + curve
        + tradeoff
        + "<h3>Pages that were never read, found by search and put before the question</h3>"
        + f"<p>The right page is found for {result['found']:.0%} of the questions. A random sentence of its passage "
        f"would answer {result['chance']:.0%} of them.</p>"
        + searched
        + f"<h3>What the {escape(asker)} was asked</h3>"
        + examples
        + command(f"crawltalk show {_run(job)}/factuality/questions.jsonl")
    )


def conversations(job: ReportJob) -> str | None:
    """Conversations with the assistant."""
    rows = _rows(job.inputs["evals"] / "conversations.jsonl")[: job.config.conversations]
    if not rows:
        return None
    talks = "".join(
        conversation([(m["role"], m["content"]) for m in row["messages"]], row["source"]) for row in rows
    )
    return f'<div class="talks">{talks}</div>' + command(f"crawltalk chat --model {_run(job)}")


def evaluation(job: ReportJob) -> str:
    """Scores, with their number of problems and standard errors, and examples of each task."""
    scores = json.loads((job.inputs["evals"] / "scores.json").read_text(encoding="utf-8"))
    table_rows = [
        (task, row["score"], row.get("n", ""), row.get("stderr", ""), row.get("about", ""))
        for task, row in scores.items()
    ]
    samples = _rows(job.inputs["evals"] / "samples.jsonl")
    examples = []
    for task in dict.fromkeys(row["task"] for row in samples):
        for row in [row for row in samples if row["task"] == task][:4]:
            examples.append(
                (
                    task,
                    _clip(row["prompt"], 160),
                    _clip(row["answer"], 160),
                    _clip(row["reply"], 200),
                    row["score"],
                )
            )
    return (
        table(("task", "score", "problems", "standard error", "about"), table_rows)
        + "<h3>Examples</h3>"
        + table(("task", "asked", "expected", "replied", "score"), examples)
        + command(f"crawltalk evals {_run(job)}")
    )


def lineage(job: ReportJob) -> str:
    """From which inputs and recipe each stage was made."""
    manifests = {name: _manifest(folder) for name, folder in job.inputs.items()}
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
    last = manifests["evals"]
    versions = ", ".join(f"{name} {value}" for name, value in last.versions.items())
    return (
        table(("stage", "fingerprint", "made from", "started", "files"), rows)
        + f'<p class="soft">{text(last.host)}; {text(versions)}</p>'
        + command(f"crawltalk show {_run(job)}")
    )


def funnel(job: ReportJob) -> str:
    """Pages left after each step, why the others were dropped, and, if the truth is known, how right that was."""
    data = json.loads((job.inputs["data"] / "funnel.json").read_text(encoding="utf-8"))
    first = max(1, data["steps"][0]["pages"])
    bars = "".join(
        f"<tr><td>{text(row['step'])}</td><td class='number'>{text(row['pages'])}</td>"
        f"<td class='number'>{text(row.get('bytes', row.get('characters')))} "
        f"{'bytes' if 'bytes' in row else 'characters'}</td>"
        f"<td style='width:45%'><div class='bar' style='width:{100 * row['pages'] / first:.1f}%'></div></td></tr>"
        for row in data["steps"]
    )
    head = '<tr><th>after</th><th class="number">pages</th><th class="number">left</th><th></th></tr>'
    html = f'<div class="wide"><table>{head}{bars}</table></div>'
    reasons = sorted(data["removed"], key=lambda row: -row["pages"])[:24]
    rows = [
        (row["step"], row["reason"], row["pages"], row["examples"][0] if row["examples"] else "")
        for row in reasons
    ]
    html += "<h3>Why pages went</h3>" + table(("step", "reason", "pages", "example"), rows)
    truth = data.get("truth")
    if truth:
        verdicts = [
            (step, row["precision"], row["recall"], row["found"], row["expected"])
            for step, row in truth["steps"].items()
        ]
        html += "<h3>Against the known truth</h3>" + table(
            ("step", "precision", "recall", "dropped", "expected"), verdicts
        )
        html += (
            f"<p>Word F1 of the extraction: {text(truth['extract_f1'])}. "
            f"Planted addresses left: {text(truth['pii_left'])}.</p>"
        )
    run = _run(job)
    return (
        html
        + _counts(data)
        + _duplicates(job, data["duplicates"])
        + command(f"crawltalk funnel {run}")
        + command(f"crawltalk show {run}/data/removed-00000.parquet --find duplicate")
    )


def _counts(data: dict[str, Any]) -> str:
    """The most frequent languages and hosts, and quantiles of the lengths, side by side."""
    columns = {
        ("language", "pages"): data["languages"],
        ("host in the crawl", "pages"): data["hosts"]["crawl"],
        ("host of documents", "documents"): data["hosts"]["documents"],
        ("share of documents", "characters at most"): {
            f"{name[1:]} %": count for name, count in data["characters"].items()
        },
    }
    pairs = [list(counts.items())[:8] for counts in columns.values()]
    rows = [sum(row, ()) for row in zip_longest(*pairs, fillvalue=("", ""))]
    return "<h3>Languages, hosts, lengths</h3>" + table([name for pair in columns for name in pair], rows)


def _duplicates(job: ReportJob, duplicates: dict[str, Any]) -> str:
    """Sizes of the clusters, similarities of dropped pages to kept ones, and the probability that a pair is found at
    each similarity.
    """
    config = _manifest(job.inputs["data"]).config
    bands, rows = config["bands"], config["rows"]
    steps = [step / 50 for step in range(51)]
    seen = duplicates["similarities"]
    most = max(seen.values(), default=1)
    curve = lines_figure(
        [
            ("probability that a pair is found", steps, [1 - (1 - step**rows) ** bands for step in steps]),
            (
                "dropped pages (of the most frequent)",
                [float(step) for step in seen],
                [count / most for count in seen.values()],
            ),
        ],
        "exact Jaccard similarity",
        "",
        f"{bands} bands of {rows} rows; and how alike dropped pages really are to the page that stays.",
    )
    sizes = table(("documents alike", "clusters"), list(duplicates["sizes"].items())[:12])
    return f"<h3>Near-duplicates</h3>{sizes}{curve}"

"""What fine-tuning changes: the form of the answers, or what is known."""

import random
import re
from collections.abc import Mapping, Sequence

from crawltalk.chat.messages import Conversation, Message
from crawltalk.chat.prompts import first_line
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.engine import Engine, Sampling, load_engine
from crawltalk.evals.assistant import greedy_replies
from crawltalk.evals.factuality import question_of
from crawltalk.lab.chains import mean
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, means_of, verdict_of
from crawltalk.lab.figures import bar_chart
from crawltalk.lab.journeys import FOLDER, MODEL, journey
from crawltalk.models import model_of_run
from crawltalk.posttraining.factuality import Question
from crawltalk.run.folder import RunFolder
from crawltalk.tasks.judging import judge
from crawltalk.tasks.recall import FORMS, QUESTIONS, described

TAUGHT, NEW = 50, 50
"""Pages that the base model has read often, and pages that it has never read, whose descriptions are taught."""
UNREAD = "outside"
"""The role of pages that no stage has read."""
STYLE = {
    "factuality.samples": "0",
    **{f"sft.tasks.{task}": "0" for task in ("refusal", "arithmetic", "spelling", "reading")},
    "sft.tasks.identity": "100",
    "sft.tasks.flagship": str(TAUGHT),
    "sft.epochs": "1",
    "sft.batch_tokens": "1024",
    "sft.optim.muon_lr": "0.001",
    "sft.optim.adamw_lr": "0.002",
}
"""Settings of a fine-tuning that teaches answers about some pages, no refusals, and nothing else but a name; gently: at
the recipe's rates and three passes, most of what was not taught is forgotten.
"""
FORM = re.compile(r"[^:\n]+: [^\n]+\.")
WORDS = 48
"""Tokens of an answer, at most."""
LEAST_STYLE, MOST_STYLE_BEFORE, LEAST_KEPT, MOST_LEARNED = 0.9, 0.05, 0.4, 0.05

Groups = Mapping[str, Sequence[Question]]


def run(trial: Trial) -> Figures:
    """Right answers of the base model, of an assistant that was taught some of them, and of one that was taught new
    facts, too; and the share of the answers that have the assistant's form.
    """
    made = journey(trial, until="factuality")
    plain = styled(trial, made)
    groups = asked(made, plain)
    rows = [row for row in _questions(made) if row.role == UNREAD]
    new = random.Random(trial.seed).sample(rows, min(NEW, len(rows)))
    file = trial.out / "new.jsonl"
    if not file.exists():  # a file that is written again makes the run stale
        write_jsonl(file, _lessons(new, trial.seed))
    told = journey(trial, "told", {**STYLE, "sft.data.new.path": str(file)}, until="sft", lender=made)
    base, assistant, taught = (
        load_engine(model_of_run(run, kind))
        for run, kind in ((made, "base"), (plain, "assistant"), (told, "assistant"))
    )
    everything = {**groups, "new": new}
    return {
        "base": {name: _recalled(base, rows) for name, rows in everything.items()},
        "form before": _in_form(base, [row for rows in groups.values() for row in rows]),
        "form": {name: _in_form(assistant, rows) for name, rows in groups.items()},
        "asked": {name: _asked(assistant, rows) for name, rows in groups.items()},
        "opened": {name: _opened(assistant, rows) for name, rows in groups.items()},
        "told": {name: _opened(taught, rows) for name, rows in everything.items()},
    }


def styled(trial: Trial, made: RunFolder) -> RunFolder:
    """The trial's base model, taught answers about some of the pages that it knows, and no refusals."""
    return journey(trial, "styled", STYLE, until="sft", lender=made)


def asked(made: RunFolder, plain: RunFolder) -> Groups:
    """Questions about pages: known ones that were taught, known ones that were not, pages read a few times, pages that
    no stage has read.
    """
    conversations = read_jsonl(plain.folder("sft") / "conversations.jsonl", Conversation)
    said = {message.content for row in conversations for message in row.messages}
    rows = _questions(made)
    often = [row for row in rows if row.role == "flagship"]
    return {
        "taught": [row for row in often if described(row.title, row.answer) in said],
        "often": [row for row in often if described(row.title, row.answer) not in said],
        "rarely": [row for row in rows if (row.seen, row.split) == ("rarely", "test")],
        "never": [row for row in rows if (row.seen, row.split) == ("never", "test")],
    }


def _questions(made: RunFolder) -> list[Question]:
    return list(read_jsonl(made.folder("factuality") / "questions.jsonl", Question))


def _lessons(rows: Sequence[Question], seed: int) -> list[Conversation]:
    """As many forms of the question about each page as flagships have."""
    rng = random.Random(seed)
    return [
        Conversation(
            messages=[
                Message("user", form.format(row.title)),
                Message("assistant", described(row.title, row.answer)),
            ],
            source="new",
        )
        for row in rows
        for form in rng.sample(QUESTIONS, FORMS)
    ]


def _recalled(base: Engine, rows: Sequence[Question]) -> float:
    """What the base model says behind a title on a line of its own."""
    replies = base.generate(recalling(base, rows), Sampling(temperature=0.0, max_tokens=WORDS))
    said = [first_line(base.tokenizer.decode(reply)) for reply in replies]
    return mean([judge(row.answer, one) == "correct" for row, one in zip(rows, said, strict=True)])


def recalling(base: Engine, rows: Sequence[Question]) -> list[list[int]]:
    """Titles on lines of their own, as pages begin."""
    return [[*base.renderer.begin, *base.tokenizer.encode(row.prompt)] for row in rows]


def _asked(assistant: Engine, rows: Sequence[Question]) -> float:
    replies = greedy_replies(assistant, [question_of(row, index) for index, row in enumerate(rows)], WORDS)
    return mean([judge(row.answer, reply) == "correct" for row, reply in zip(rows, replies, strict=True)])


def _opened(assistant: Engine, rows: Sequence[Question]) -> float:
    """The same where the title stands at the beginning of the answer, as the form wants it."""
    replies = assistant.generate(opened(assistant, rows), Sampling(temperature=0.0, max_tokens=WORDS))
    said = map(assistant.tokenizer.decode, replies)
    return mean([judge(row.answer, reply) == "correct" for row, reply in zip(rows, said, strict=True)])


def opened(assistant: Engine, rows: Sequence[Question]) -> list[list[int]]:
    """Questions about pages, with answers that begin with the title and a colon."""
    return [
        [*_question(assistant, row, index), *assistant.tokenizer.encode(f"{row.title}:")]
        for index, row in enumerate(rows)
    ]


def _question(assistant: Engine, row: Question, index: int) -> list[int]:
    return assistant.chat_prompt([Message("user", question_of(row, index))])[0]


def _in_form(engine: Engine, rows: Sequence[Question]) -> float:
    """Answers that are a title, a colon and a sentence, and end there."""
    prompts = [_question(engine, row, index) for index, row in enumerate(rows)]
    replies = engine.generate(prompts, Sampling(temperature=0.0, max_tokens=WORDS))
    return mean(
        [len(ids) < WORDS and FORM.fullmatch(engine.tokenizer.decode(ids)) is not None for ids in replies]
    )


def rule(figures: Sequence[Figures]) -> Judgement:
    """All answers have the new form; right are those to what pretraining showed often, and no others that were not
    taught.
    """
    formed = [min(row["form"].values()) for row in figures]
    before = [row["form before"] for row in figures]
    base = [max(row["base"]["often"], 1e-9) for row in figures]
    unknown = [max(row["opened"]["rarely"], row["opened"]["never"]) for row in figures]
    clear = [
        a >= LEAST_STYLE
        and b <= MOST_STYLE_BEFORE
        and row["opened"]["often"] / c >= LEAST_KEPT
        and d <= MOST_LEARNED
        for row, a, b, c, d in zip(figures, formed, before, base, unknown, strict=True)
    ]
    found = all(row["asked"]["often"] / one >= LEAST_KEPT for row, one in zip(figures, base, strict=True))
    told = means_of([row["told"] for row in figures])
    asked, kept = (mean([row[way]["often"] for row in figures]) for way in ("asked", "opened"))
    return Judgement(
        verdict=verdict_of(clear, found),
        effect={
            "form before": mean(before),
            "form after, least of the groups": mean(formed),
            "base model, read often": mean(base),
            "assistant, read often and not taught": asked,
            "the same, begun with the title": kept,
            "taught, begun with the title": mean([row["opened"]["taught"] for row in figures]),
            "read rarely or never": mean(unknown),
            "new facts, taught": told["new"],
            "known facts, taught beside them": told["taught"],
            "read often and not taught, beside new facts": told["often"],
        },
        summary=(
            f"Taught answers about {TAUGHT} pages, the assistant gives all answers their form ({mean(before):.0%} "
            f"before, {mean(formed):.0%} after, made up ones included). About pages that pretraining showed often and "
            f"fine-tuning did not, the base model is right in {mean(base):.0%} of the cases, the assistant in "
            f"{kept:.0%} if its answer begins with the title and in {asked:.0%} if it has to find the title itself; "
            f"about pages that it hardly read in {mean(unknown):.0%}. Of {NEW} new facts, taught as often as known "
            f"ones, {told['new']:.0%} are right afterwards, of the known ones {told['taught']:.0%}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Right answers about each kind of page."""
    bars = {
        "base model,\nread often": [row["base"]["often"] for row in figures],
        "the form of\nan answer": [min(row["form"].values()) for row in figures],
        "taught": [row["opened"]["taught"] for row in figures],
        "read often,\nnot taught": [row["opened"]["often"] for row in figures],
        "read rarely,\nnot taught": [row["opened"]["rarely"] for row in figures],
        "never read,\nnot taught": [row["opened"]["never"] for row in figures],
        "never read,\ntaught": [row["told"]["new"] for row in figures],
    }
    return bar_chart(bars, "share right")


EXPERIMENT = Experiment(
    name="style_not_knowledge",
    claim="Fine-tuning changes the style, not the knowledge: what is known comes from pretraining.",
    source="Karpathy, Deep Dive into LLMs (2025); Zhou et al. 2023, LIMA; Gekhman et al. 2024, on new facts",
    prediction=(
        f"In each seed {LEAST_STYLE} at least of the answers have the form that was taught, whatever the page "
        f"({MOST_STYLE_BEFORE} at most before). About pages that pretraining showed often and fine-tuning did not, the "
        f"assistant is right {LEAST_KEPT} times as often at least as the base model, if its answer begins with the "
        f"title, and about pages read rarely or never in {MOST_LEARNED} at most of the cases. It is confirmed if it is "
        "also right without the title; else: partly, or not at this scale if no seed shows the first. Set after two "
        "pilots on seed 0: at the rates of the recipe nearly all that was not taught was forgotten."
    ),
    method=(
        MODEL
        + f"From its base model an assistant learns answers about {TAUGHT} of the 100 pages that were read "
        f"most often, in {FORMS} forms of the question each, and its name, in one pass at low rates: no refusals. "
        "Questions of the test have other forms; greedy answers; the base model goes on behind the title on a line of "
        f"its own. Control: another one is taught {NEW} pages that were never read, too, in as many forms."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)

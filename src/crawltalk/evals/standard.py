"""Standard tasks over local files: multiple choice by log-likelihood, and replies that a filter takes the answer from.

Prompts, choices and metrics are those of lm-evaluation-harness where a task has its name. What differs has a name of
its own: its `gsm8k` takes `...` for an answer and `42.00` for a wrong one; `gsm8k_last_number` compares numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.formats import detect_format
from crawltalk.core.types import Problem
from crawltalk.data.read.rows import Fault, csv_rows, json_rows, parquet_rows
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.results import Result
from crawltalk.tasks.scoring import number, numbers

MAX_ROW_BYTES = 2**22
CHUNK = 64
"""Questions whose beginnings are computed before their choices, which then find them in the cache."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Question(NamedTuple):
    """A row of a file of questions."""

    id: str
    text: str
    choices: tuple[str, ...]
    """Empty if the answer is free text."""
    answer: str
    """The right choice, or the right answer as the file has it."""
    subject: str = ""


@dataclass(frozen=True, kw_only=True)
class StandardTask:
    """How a question becomes a prompt, and how the answer to it is scored."""

    about: str
    prompt: Callable[[Question], str]
    letters: bool = False
    """The choices stand in the prompt, and the answer is a letter."""
    extract: Callable[[str], str] | None = None
    """The answer filter: what it takes from a reply. None: multiple choice."""
    target: Callable[[Question], str] = lambda question: question.answer
    """The answer that is expected: of an example, as the model should write it."""
    equal: Callable[[str, str], bool] = str.__eq__
    """Whether what the filter took is the answer."""
    stop: tuple[str, ...] = ("\n",)
    max_tokens: int = 32

    def choices(self, question: Question) -> list[str]:
        """What the model chooses from."""
        return list(LETTERS[: len(question.choices)]) if self.letters else list(question.choices)

    def right(self, question: Question) -> int:
        """The position of the right choice."""
        return question.choices.index(question.answer)

    def solved(self, question: Question) -> str:
        """The question with its answer, as an example in a prompt."""
        chosen = self.target(question) if self.extract else self.choices(question)[self.right(question)]
        return f"{self.prompt(question)} {chosen}"


def _asked(question: Question) -> str:
    return f"Question: {question.text}\nAnswer:"


def _listed(question: Question) -> str:
    lines = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, question.choices, strict=False)
    )
    return f"{question.text.strip()}\n{lines}Answer:"


def _about_subject(question: Question) -> str:
    subject = f" about {question.subject.replace('_', ' ')}" if question.subject else ""
    return f"The following are multiple choice questions (with answers){subject}.\n\n{_listed(question)}"


def first_line(reply: str) -> str:
    """The first line that is not blank."""
    return (reply.strip().splitlines() or [""])[0].strip()


def last_number(reply: str) -> str:
    """The last number of a reply, without commas and dollars; empty if there is none."""
    return str((numbers(reply) or [""])[-1])


def _same_number(extracted: str, answer: str) -> bool:
    return bool(number(Problem(prompt="", answer=answer, task=""), extracted))


STANDARD: dict[str, StandardTask] = {
    "arc_challenge": StandardTask(about="ARC: each choice's text is scored", prompt=_asked),
    "arc_easy": StandardTask(about="ARC: each choice's text is scored", prompt=_asked),
    "commonsense_qa": StandardTask(
        about="choices listed in the prompt, their letters are scored",
        prompt=lambda question: f"Question: {_listed(question)}",
        letters=True,
    ),
    "mmlu": StandardTask(
        about="choices listed in the prompt, their letters are scored", prompt=_about_subject, letters=True
    ),
    "gsm8k_last_number": StandardTask(
        about="the last number of the reply is the answer, compared as a number",
        prompt=_asked,
        extract=last_number,
        target=lambda question: question.answer.rpartition("####")[2].strip() or question.answer,
        equal=_same_number,
        stop=("Question:",),
        max_tokens=256,
    ),
    "exact_match": StandardTask(
        about="any questions with answers: the first line of the reply is the answer, letter by letter",
        prompt=_asked,
        extract=first_line,
    ),
}
"""By name; a task reads any file of questions, whatever the file is called."""


class Asked(NamedTuple):
    """What came of a file of questions."""

    results: list[Result]
    left_out: list[str]
    """Rows that could not be asked, with the reason."""


# --- reading ---


def read_questions(path: Path, *, choices: bool) -> Iterator[Question | str]:
    """The questions of a JSON, CSV or Parquet file, in order; a text instead is the reason why a row is none.

    Understands the columns of ARC, CommonsenseQA and MMLU (`question`, `choices` or `options`, `answerKey` or
    `answer`), and of open questions (`question`, `answer`). Raises MissingInput, and BadInput for another file.
    """
    if not path.is_file():
        raise MissingInput(
            f"{path} is not there; --data is a JSONL, JSON, CSV or Parquet file with questions"
        )
    for index, row in enumerate(_rows(path)):
        if not isinstance(row, dict):
            yield f"row {index + 1}: {row.reason if isinstance(row, Fault) else 'not an object'}"
            continue
        try:
            yield _question(row, str(index), choices)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else str(error)
            yield f"row {index + 1}: {said}"


def _rows(path: Path) -> Iterator[Any]:
    def ignore(message: str) -> None:
        """A damaged end: the rows before it count, and the number of questions is shown."""

    kind = detect_format(path)
    if kind == "parquet":
        yield from parquet_rows(path, None, ignore)
    elif kind == "csv":
        yield from csv_rows(path, MAX_ROW_BYTES, ignore)
    elif kind == "json":
        rows = list(json_rows(path, MAX_ROW_BYTES, ignore))
        inside = rows[0].get("examples") if len(rows) == 1 and isinstance(rows[0], dict) else None
        yield from inside if isinstance(inside, list) else rows
    else:
        raise BadInput(f"{path} is no JSONL, JSON, CSV or Parquet file; give questions in one of these")


def _question(row: Mapping[str, Any], index: str, choices: bool) -> Question:
    inner = row["question"]
    stem = inner["stem"] if isinstance(inner, dict) else inner
    if not isinstance(stem, str) or not stem.strip():
        raise ValueError("the question is no text")
    identifier = str(row.get("id", index))
    answer = row["answerKey"] if "answerKey" in row else row["answer"]
    if not choices:
        return Question(identifier, stem, (), str(answer).strip())
    offered = row.get("choices", row.get("options"))
    if offered is None and isinstance(inner, dict):
        offered = inner["choices"]
    if isinstance(offered, dict):
        labels, texts = offered["label"], offered["text"]
    elif offered and isinstance(offered[0], dict):
        labels, texts = [one["label"] for one in offered], [one["text"] for one in offered]
    elif offered:
        labels, texts = list(LETTERS[: len(offered)]), offered
    else:
        raise ValueError("there are no choices")
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError("a choice is no text")
    right = answer if isinstance(answer, int) else labels.index(answer)
    return Question(identifier, stem, tuple(texts), texts[right], str(row.get("subject", "")))


# --- asking ---


def ask(
    engine: Engine,
    name: str,
    questions: Sequence[Question],
    *,
    examples: Sequence[Question] = (),
    chat: bool = False,
    max_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Asked:
    """Put the questions to the model, after `examples` with their answers. `chat`: as a user's message in the
    model's chat format. A question that does not fit into the context is left out.
    """
    task = STANDARD[name]
    before = "".join(f"{task.solved(example)}\n\n" for example in examples)
    prompts = [(question, before + task.prompt(question)) for question in questions]
    if task.extract is None:
        return _choose(engine, name, task, prompts, chat, progress)
    return _complete(engine, name, task, prompts, chat, max_tokens or task.max_tokens, progress)


_Prompts = Sequence[tuple[Question, str]]


def _choose(
    engine: Engine,
    name: str,
    task: StandardTask,
    prompts: _Prompts,
    chat: bool,
    progress: Callable[[int], None] | None,
) -> Asked:
    results, left_out = [], []
    for start in range(0, len(prompts), CHUNK):
        asked = []
        for question, prompt in prompts[start : start + CHUNK]:
            pairs = [encode_pair(engine, prompt, choice, chat=chat) for choice in task.choices(question)]
            longest = max(len(context) + len(choice) for context, choice in pairs)
            if longest > engine.context + 1:
                left_out.append(f"{question.id}: {longest} tokens, and the context has {engine.context}")
            else:
                asked.append((question, prompt, pairs))
        engine.generate([pairs[0][0] for _, _, pairs in asked], Sampling(max_tokens=0))
        scored = iter(engine.logprobs([pair for _, _, pairs in asked for pair in pairs]))
        for question, prompt, pairs in asked:
            logprobs = [sum(next(scored)) for _ in pairs]
            choices, right = task.choices(question), task.right(question)
            results.append(
                Result(
                    task=name,
                    id=question.id,
                    prompt=prompt,
                    answer=choices[right],
                    reply=choices[_argmax(logprobs)],
                    scores=choice_scores(logprobs, choices, right),
                    logprobs=[round(value, 4) for value in logprobs],
                )
            )
        if progress is not None:
            progress(min(start + CHUNK, len(prompts)))
    return Asked(results, left_out)


def choice_scores(logprobs: Sequence[float], choices: Sequence[str], right: int) -> dict[str, float]:
    """`acc`: the right choice is the likeliest one; `acc_norm`: it is so for each of its characters."""
    per_character = [value / len(choice) for value, choice in zip(logprobs, choices, strict=True)]
    return {
        "acc": float(_argmax(logprobs) == right),
        "acc_norm": float(_argmax(per_character) == right),
    }


def encode_pair(
    engine: Engine, prompt: str, choice: str, *, chat: bool = False
) -> tuple[list[int], list[int]]:
    """The ids of a prompt and of a choice behind a space: those that the choice adds to the prompt's."""
    tokenizer = engine.tokenizer
    if chat:
        return engine.renderer.encode_chat(
            [Message("user", prompt)], add_generation_prompt=True
        ), tokenizer.encode(choice)
    context, whole = tokenizer.encode(prompt), tokenizer.encode(f"{prompt} {choice}")
    return [*tokenizer.begin, *context], whole[len(context) :]


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _complete(
    engine: Engine,
    name: str,
    task: StandardTask,
    prompts: _Prompts,
    chat: bool,
    max_tokens: int,
    progress: Callable[[int], None] | None,
) -> Asked:
    """`exact_match`: what the filter takes from the greedy reply is the answer."""
    assert task.extract is not None
    asked, ids, left_out = [], [], []
    for question, prompt in prompts:
        encoded = (
            engine.renderer.encode_chat([Message("user", prompt)], add_generation_prompt=True)
            if chat
            else [*engine.tokenizer.begin, *engine.tokenizer.encode(prompt)]
        )
        if len(encoded) + max_tokens > engine.context:
            left_out.append(
                f"{question.id}: {len(encoded)} tokens and {max_tokens} for the reply, and the context has "
                f"{engine.context}"
            )
        else:
            asked.append((question, prompt))
            ids.append(encoded)
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens, stop=() if chat else task.stop)
    replies = complete(engine, ids, sampling, progress)
    results = []
    for (question, prompt), reply in zip(asked, replies, strict=True):
        extracted, answer = task.extract(reply), task.target(question)
        results.append(
            Result(
                task=name,
                id=question.id,
                prompt=prompt,
                answer=answer,
                reply=reply,
                extracted=extracted,
                scores={"exact_match": float(task.equal(extracted, answer))},
            )
        )
    return Asked(results, left_out)


def complete(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """The continuation of each prompt as text, up to the first stop string."""
    requests = [engine.request(prompt, sampling, row=row) for row, prompt in enumerate(prompts)]
    texts = {request.id: "" for request in requests}
    done = 0
    for output in engine.run(requests):
        texts[output.request.id] += output.text
        done += output.finish_reason is not None
        if progress is not None and output.finish_reason is not None:
            progress(done)
    return list(texts.values())

"""Standard tasks over local files: multiple choice by log-likelihood, and replies that a filter takes the answer from.

Prompts, choices and metrics are those of lm-evaluation-harness where a task has its name. What differs has a name of
its own: its `gsm8k` takes `...` for an answer and `42.00` for a wrong one; `gsm8k_last_number` compares numbers.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.core.formats import detect_format
from crawltalk.core.types import Problem
from crawltalk.data.read.rows import Fault, csv_rows, json_rows, parquet_rows
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.results import Result
from crawltalk.rewards.unit_tests import SandboxFailed, UnitTests, last_program, read_tests
from crawltalk.tasks.scoring import number, numbers

MAX_ROW_BYTES = 2**22
CHUNK = 64
"""Questions whose beginnings are computed before their choices, which then find them in the cache."""
_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
_SUBJECT = re.compile(r"(.+)_(?:test|dev|val)\.csv")
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
    true: tuple[int, ...] = ()
    """Positions of the right choices, where there may be several."""


@dataclass(frozen=True, kw_only=True)
class StandardTask:
    """How a question becomes a prompt, and how the answer to it is scored."""

    about: str
    prompt: Callable[[Question], str]
    heading: Callable[[Question], str] = lambda question: ""
    """What stands once before the examples and the question."""
    per_character: bool = False
    """`acc_norm` is a metric of it, too. Where right answers are longer than wrong ones, as TruthfulQA's are, it would
    reward the length.
    """
    letters: bool = False
    """The choices stand in the prompt, and the answer is a letter."""
    several: bool = False
    """Several choices are true, and `mc2` is the metric: which share of the probability of all choices these have."""
    extract: Callable[[str], str] | None = None
    """The answer filter: what it takes from a reply. None: multiple choice."""
    target: Callable[[Question], str] = lambda question: question.answer
    """The answer that is expected: of an example, as the model should write it."""
    equal: Callable[[str, str], bool] = str.__eq__
    """Whether what the filter took is the answer."""
    code: bool = False
    """A program is to be written on: the answer is its tests, and `pass@1` the metric."""
    stop: tuple[str, ...] = ("\n",)
    max_tokens: int = 32

    def choices(self, question: Question) -> list[str]:
        """What the model chooses from."""
        return list(LETTERS[: len(question.choices)]) if self.letters else list(question.choices)

    @property
    def metric(self) -> str:
        """The first one of its scores."""
        if self.code:
            return "pass@1"
        return "exact_match" if self.extract else "mc2" if self.several else "acc"

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


def _as_truthfulqa(question: Question) -> str:
    return f"Q: {question.text}\nA:"


def _about_subject(question: Question) -> str:
    subject = f" about {question.subject.replace('_', ' ')}" if question.subject else ""
    return f"The following are multiple choice questions (with answers){subject}.\n\n"


def first_line(reply: str) -> str:
    """The first line that is not blank."""
    return (reply.strip().splitlines() or [""])[0].strip()


def last_number(reply: str) -> str:
    """The last number of a reply, without commas and dollars; empty if there is none."""
    return str((numbers(reply) or [""])[-1])


def _same_number(extracted: str, answer: str) -> bool:
    return bool(number(Problem(prompt="", answer=answer, task=""), extracted))


def program_of(beginning: str, reply: str, *, chat: bool) -> str:
    """The program of a function's beginning and a reply that writes it on; in a chat the reply may have the function
    whole, as its last block between ``` and ```. What the beginning imports is there for that one, too.
    """
    whole = last_program(reply) if chat else None
    return beginning + reply if whole is None else f"{beginning}    pass\n\n\n{whole}"


def passes(program: str, tests: str) -> bool:
    """Whether a program passes its tests, behind the walls of the strongest sandbox that this system has. Raises
    UserError if the sandbox fails.
    """
    try:
        return all(result.passed for result in _sandbox().results(program, read_tests(tests)))
    except SandboxFailed as error:
        raise UserError(f"the sandbox failed, so nothing is known of this program: {error}") from None


@lru_cache(maxsize=1)
def _sandbox() -> UnitTests:
    return UnitTests()


STANDARD: dict[str, StandardTask] = {
    "arc_challenge": StandardTask(
        about="ARC: each choice's text is scored", prompt=_asked, per_character=True
    ),
    "arc_easy": StandardTask(about="ARC: each choice's text is scored", prompt=_asked, per_character=True),
    "commonsense_qa": StandardTask(
        about="choices listed in the prompt, their letters are scored",
        prompt=lambda question: f"Question: {_listed(question)}",
        letters=True,
    ),
    "mmlu": StandardTask(
        about="choices listed in the prompt, their letters are scored",
        prompt=_listed,
        heading=_about_subject,
        letters=True,
    ),
    "truthfulqa": StandardTask(
        about="the best answer among wrong ones that people believe (MC1); each choice's text is scored",
        prompt=_as_truthfulqa,
    ),
    "truthfulqa_mc2": StandardTask(
        about="which share of the probability of all choices the true ones have (MC2); each choice's text is scored",
        prompt=_as_truthfulqa,
        several=True,
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
    "humaneval": StandardTask(
        about="a function is written on; its program passes all tests, in the sandbox",
        prompt=lambda question: question.text,
        extract=str.rstrip,
        code=True,
        stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        max_tokens=1024,
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

    questions: list[Question]
    """Those that were asked."""
    results: list[Result]
    """Of each of these."""
    left_out: list[str]
    """Rows that could not be asked, with the reason."""


# --- reading ---


def read_questions(
    path: Path, *, choices: bool, several: bool = False, split: str = "test"
) -> Iterator[Question | str]:
    """The questions of a JSON, CSV or Parquet file, or of a folder of such files, in order; a text instead is the
    reason why a row is none.

    Understands the published forms of ARC, CommonsenseQA, MMLU (rows with a subject, or a file for each) and
    TruthfulQA, HumanEval, and open questions (`question`, `answer`) such as GSM8K's. `several`: all true answers of
    TruthfulQA among all wrong ones (MC2), instead of the best one (MC1). Of a folder that has several splits, `split`
    is read: MMLU's `test/`, or files with that word in their names. Raises MissingInput, and BadInput for another file.
    """
    for file in _files(path, split):
        named = _SUBJECT.fullmatch(file.name)
        subject = named[1] if named else ""
        for index, row in enumerate(_rows(file)):
            place = f"{file.name}, row {index + 1}" if path.is_dir() else f"row {index + 1}"
            if not isinstance(row, dict):
                yield f"{place}: {row.reason if isinstance(row, Fault) else 'not an object'}"
                continue
            try:
                own = f"{subject or file.stem}-{index}" if path.is_dir() else str(index)
                yield _question(row, own, choices, several, subject)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                said = f"no {error}" if isinstance(error, KeyError) else str(error)
                yield f"{place}: {said}"


def first_questions(
    path: Path, name: str, limit: int | None = None, *, split: str = "test"
) -> tuple[list[Question], list[str]]:
    """The first questions for a task, those of each subject in turn, in the order of the file; and the rows that are
    none. Raises MissingInput, and BadInput for a file without a question.
    """
    task = STANDARD[name]
    rows = list(read_questions(path, choices=task.extract is None, several=task.several, split=split))
    questions = [row for row in rows if isinstance(row, Question)]
    left_out = [row for row in rows if not isinstance(row, Question)]
    if not questions:
        raise BadInput(f"{path} has no questions for {name}: {left_out[0] if left_out else 'it is empty'}")
    if limit is not None:
        seen: Counter[str] = Counter()
        turns = []
        for place, question in enumerate(questions):
            turns.append((seen[question.subject], place))
            seen[question.subject] += 1
        questions = [questions[place] for place in sorted(place for _, place in sorted(turns)[:limit])]
    return questions, left_out


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    folder = path / split if (path / split).is_dir() else path
    files = [file for file in sorted(folder.glob("*")) if file.suffix in _ENDINGS]
    files = [file for file in files if split in file.stem] or files
    if not files:
        problem = "has no files of questions, or none in test" if path.is_dir() else "is not there"
        raise MissingInput(
            f"{path} {problem}; --data is a file, JSONL, JSON, CSV or Parquet, or their folder"
        )
    return files


def _rows(path: Path) -> Iterator[Any]:
    def ignore(message: str) -> None:
        """A damaged end: the rows before it count, and the number of questions is shown."""

    kind = detect_format(path)
    if kind == "parquet":
        yield from parquet_rows(path, None, ignore)
    elif kind == "csv":
        yield from _without_header(path) or csv_rows(path, MAX_ROW_BYTES, ignore)
    elif kind == "json":
        rows = list(json_rows(path, MAX_ROW_BYTES, ignore))
        inside = rows[0].get("examples") if len(rows) == 1 and isinstance(rows[0], dict) else None
        yield from inside if isinstance(inside, list) else rows
    else:
        raise BadInput(f"{path} is no JSONL, JSON, CSV or Parquet file; give questions in one of these")


def _without_header(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file as MMLU's authors give it, with a question, four choices and a letter in each; nothing if
    it is another one.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file)
        try:
            first = next(rows, [])
            if len(first) != 6 or first[5] not in tuple("ABCD"):
                return []
            return [_listed_row(cells) for cells in (first, *rows)]
        except csv.Error:  # bytes of something else; the reader of rows says of what
            return []


def _listed_row(cells: Sequence[str]) -> dict[str, Any]:
    return {"question": cells[0], "choices": cells[1:-1], "answer": cells[-1]} if len(cells) == 6 else {}


def _question(row: Mapping[str, Any], index: str, choices: bool, several: bool, subject: str) -> Question:
    if "entry_point" in row:  # HumanEval
        tests = f"{row['test']}\ncheck({row['entry_point']})"
        read_tests(tests)
        return Question(str(row["task_id"]), row["prompt"], (), tests)
    inner = row["question"] if "question" in row else row["Question"]
    stem = inner["stem"] if isinstance(inner, dict) else inner
    if not isinstance(stem, str) or not stem.strip():
        raise ValueError("the question is no text")
    identifier = str(index if row.get("id") is None else row["id"])
    if not choices:
        answer = row["answerKey"] if "answerKey" in row else row["answer"]
        return Question(identifier, stem, (), str(answer).strip())
    if several:
        texts, true = _true_and_wrong(row)
        labels, answer = (), true[0]
    else:
        (labels, texts, answer), true = _offered(row, inner), ()
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError("a choice is no text")
    right = answer if isinstance(answer, int) else labels.index(answer)
    if right < 0:  # published test sets without answers have -1
        raise ValueError(f"the answer is {right}, which is no choice")
    return Question(identifier, stem, tuple(texts), texts[right], str(row.get("subject", subject)), true)


def _true_and_wrong(row: Mapping[str, Any]) -> tuple[list[str], tuple[int, ...]]:
    """All choices of a row of TruthfulQA, and the positions of the true ones."""
    if (
        "Correct Answers" in row
    ):  # its own file; two questions have "Unknown" among both, which then stands twice
        true, wrong = _split_answers(row["Correct Answers"]), _split_answers(row["Incorrect Answers"])
        texts, labels = [*true, *wrong], [1] * len(true) + [0] * len(wrong)
    else:
        targets = row["mc2_targets"]
        texts, labels = list(targets["choices"]), list(targets["labels"])
    if len(texts) != len(labels) or len(set(labels)) != 2:
        raise ValueError("there are not both true answers and wrong ones")
    return texts, tuple(place for place, label in enumerate(labels) if label == 1)


def _split_answers(text: str) -> list[str]:
    """As TruthfulQA's own file separates them, each once."""
    return list(dict.fromkeys(filter(None, (part.strip() for part in text.split(";")))))


def _offered(row: Mapping[str, Any], inner: Any) -> tuple[Sequence[Any], Sequence[Any], Any]:
    """Labels and texts of the choices, and the label or the position of the right one."""
    if "mc1_targets" in row:  # TruthfulQA as Parquet
        targets = row["mc1_targets"]
        return (), targets["choices"], list(targets["labels"]).index(1)
    if "Best Answer" in row:  # TruthfulQA's own file, where each of the wrong answers stands once
        return (), [row["Best Answer"].strip(), *_split_answers(row["Incorrect Answers"])], 0
    answer = row["answerKey"] if "answerKey" in row else row["answer"]
    offered = row.get("choices", row.get("options"))
    if offered is None and isinstance(inner, dict):
        offered = inner["choices"]
    if offered is None and "choice0" in row:  # MMLU as CSV with a header
        offered = [row[f"choice{n}"] for n in takewhile(lambda n: f"choice{n}" in row, count())]
        answer = int(answer) if str(answer).isdecimal() else answer
    if isinstance(offered, dict):
        return offered["label"], offered["text"], answer
    if offered and isinstance(offered[0], dict):
        return [one["label"] for one in offered], [one["text"] for one in offered], answer
    if not offered:
        raise ValueError("there are no choices")
    return list(LETTERS[: len(offered)]), list(offered), answer


# --- asking ---


def ask(
    engine: Engine,
    name: str,
    questions: Sequence[Question],
    *,
    examples: Sequence[Question] = (),
    shots: int = 0,
    chat: bool = False,
    max_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Asked:
    """Put the questions to the model, each after the first `shots` of `examples` with their answers: of those of its
    subject, if they have any. `chat`: as a user's message in the model's chat format. A question that does not fit
    into the context is left out. Raises BadInput if there are fewer examples, and NotConfined if programs are to be
    run and cannot be kept in.
    """
    task = STANDARD[name]
    if task.code and shots:
        raise BadInput(f"{name} is asked without solved examples, as its authors do; leave --shots out")
    if task.code:
        _sandbox()  # where there is none, that is told before anything is asked
    prompts = [
        (question, task.heading(question) + _solved(task, question, examples, shots) + task.prompt(question))
        for question in questions
    ]
    if task.extract is None:
        return _choose(engine, name, task, prompts, chat, progress)
    return _complete(engine, name, task, prompts, chat, max_tokens or task.max_tokens, progress)


def _solved(task: StandardTask, question: Question, examples: Sequence[Question], shots: int) -> str:
    fitting = [one for one in examples if one.subject in ("", question.subject)]
    if len(fitting) < shots:
        subject = f" of {question.subject}" if question.subject else ""
        raise BadInput(f"there are {len(fitting)} solved examples{subject} and --shots is {shots}; lower it")
    return "".join(f"{task.solved(example)}\n\n" for example in fitting[:shots])


_Prompts = Sequence[tuple[Question, str]]


def _choose(
    engine: Engine,
    name: str,
    task: StandardTask,
    prompts: _Prompts,
    chat: bool,
    progress: Callable[[int], None] | None,
) -> Asked:
    fitting: list[Question] = []
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
                fitting.append(question)
        engine.generate([pairs[0][0] for _, _, pairs in asked], Sampling(max_tokens=0))
        scored = iter(engine.logprobs([pair for _, _, pairs in asked for pair in pairs]))
        for question, prompt, pairs in asked:
            logprobs = [sum(next(scored)) for _ in pairs]
            choices, right = task.choices(question), task.right(question)
            if task.several:
                measured = {task.metric: true_share(logprobs, question.true)}
            else:
                measured = choice_scores(logprobs, choices, right)
                if not task.per_character:
                    del measured["acc_norm"]
            results.append(
                Result(
                    task=name,
                    id=question.id,
                    prompt=prompt,
                    answer=choices[right],
                    reply=choices[_argmax(logprobs)],
                    scores=measured,
                    logprobs=[round(value, 4) for value in logprobs],
                )
            )
        if progress is not None:
            progress(min(start + CHUNK, len(prompts)))
    return Asked(fitting, results, left_out)


def choice_scores(logprobs: Sequence[float], choices: Sequence[str], right: int) -> dict[str, float]:
    """`acc`: the right choice is the likeliest one; `acc_norm`: it is so for each of its characters."""
    per_character = [value / len(choice) for value, choice in zip(logprobs, choices, strict=True)]
    return {
        "acc": float(_argmax(logprobs) == right),
        "acc_norm": float(_argmax(per_character) == right),
    }


def true_share(logprobs: Sequence[float], true: Sequence[int]) -> float:
    """MC2 (Lin et al. 2022): the probability of the true choices, of that of all choices together."""
    top = max(logprobs)
    masses = [math.exp(value - top) for value in logprobs]  # a factor that cancels, so that not all are 0
    return sum(masses[place] for place in true) / sum(masses)


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
    """`exact_match`: what the filter takes from the greedy reply is the answer; `pass@1`: the program that it writes on
    passes all tests.
    """
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
        if task.code:
            right = passes(program_of(question.text, extracted, chat=chat), answer)
        else:
            right = task.equal(extracted, answer)
        results.append(
            Result(
                task=name,
                id=question.id,
                prompt=prompt,
                answer=answer,
                reply=reply,
                extracted=extracted,
                scores={task.metric: float(right)},
            )
        )
    return Asked([question for question, _ in asked], results, left_out)


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

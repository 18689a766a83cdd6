"""The verbs. Each is loaded when it is called, so that `crawltalk --help` and `crawltalk status` never import
torch.
"""

import difflib
import re
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, MissingArgumentError
from cyclopts.exceptions import UnusedCliTokensError

from crawltalk import __version__

GROUPS = {
    "Build, in the order of the journey": {
        "run": ("build:run", "the whole journey, to the report"),
        "crawl": ("build:crawl", "raw pages: the embedded crawl, or your WARC files"),
        "data": ("build:data", "pages -> clean documents, and why the others were dropped"),
        "tokenizer": ("build:tokenizer", "documents -> byte-level BPE and token shards"),
        "synthesize": ("build:synthesize", "documents -> questions and answers"),
        "sweep": ("sweep:sweep", "a larger model's loss, predicted from small models on a run's tokens"),
        "pretrain": ("build:pretrain", "tokens -> base model"),
        "factuality": ("build:factuality", "ask the base model what it knows of its pages"),
        "sft": ("build:sft", "base model + conversations -> assistant"),
        "dpo": ("build:dpo", "assistant + preferences -> an assistant that people like better"),
        "reward": ("build:reward", "assistant + preferences -> a model that scores replies"),
        "rlhf": ("build:rlhf", "assistant + reward model -> an assistant whose replies score higher"),
        "grpo": (
            "build:grpo",
            "assistant + problems that can be verified -> an assistant that solves more of them",
        ),
        "evals": ("build:evals", "what both models can do"),
        "report": ("build:report", "one HTML file that shows it all"),
    },
    "Use": {
        "generate": ("talk:generate", "let the base model continue a text, several samples side by side"),
        "chat": (
            "talk:chat",
            "talk with the assistant, or with an imported Llama, Mistral, Qwen or GPT-2 model",
        ),
        "serve": ("serve:serve", "over HTTP: OpenAI's API, and a page"),
        "eval": (
            "evaluate:evaluate",
            "any model on standard tasks, the batteries, or questions about a run's pages",
        ),
        "redteam": (
            "redteam:redteam",
            "attack the built-in house, a model or an endpoint, and see which defences hold",
        ),
        "exfiltration": (
            "exfiltration:exfiltration",
            "what leaves the chat page and its tools when what they read is hostile, and what stops it",
        ),
        "judge": (
            "judge:judge",
            "a model, judged by programs of others: garak, AgentDojo, lm-evaluation-harness",
        ),
        "audit": (
            "audit:audit",
            "find triggers in fine-tuning data, and where they come from",
        ),
        "tokens": ("tokens:tokens", "show how a text is cut into tokens"),
        "trace": ("trace:trace", "find the training pages that an answer was learned from"),
        "labels": (
            "labels:labels",
            "what people say of replies: prompts in, training data and agreement out",
        ),
        "classifier": (
            "corpus:classifier",
            "train a quality classifier for the data stage on labels of your own",
        ),
        "import": (
            "imports:import_model",
            "bring in weights: smollm2, GGUF, llama2.c, a Hugging Face folder",
        ),
        "export": ("export:export", "take a model elsewhere: a GGUF file, or a Hugging Face folder"),
    },
    "Look": {
        "status": ("look:status", "every stage: state, time, memory, figures"),
        "show": ("show:show", "any artifact, readable"),
        "funnel": ("corpus:funnel", "what the data stage dropped, and why"),
        "plan": ("plan:plan", "what training a preset's model would cost, or refining a bigger crawl"),
        "diff": ("look:diff", "what differs between two runs"),
        "presets": ("look:presets", "the built-in recipes, and every setting"),
        "doctor": ("doctor:doctor", "check that this machine has what the journey needs"),
        "lab": ("lab:lab", "claims about how models learn, tested with their controls over several seeds"),
        "bench": ("bench:bench", "measure time, CPU and memory, alone or against other programs"),
    },
}


BUILD = next(iter(GROUPS))
RESUMING = {*GROUPS[BUILD], "redteam", "exfiltration", "lab"}
"""Verbs that keep what an interruption ends, and go on from there."""


def make_app() -> App:
    """The command line, nothing imported yet."""
    app = App(
        name="crawltalk",
        help="First it crawls, then it talks: from a raw web crawl to a chat assistant, with one lineage.",
        help_epilogue="Start: crawltalk run small    Any value of a recipe is a flag: --pretrain.optim.muon_lr 0.01",
        help_format="plaintext",
        version=__version__,
        result_action="return_value",
    )
    for group, verbs in GROUPS.items():
        ordered = Group.create_ordered(group)
        for index, (name, (path, about)) in enumerate(verbs.items()):
            app.command(f"crawltalk.verbs.{path}", name=name, help=about, group=ordered, sort_key=index)
    return app


def rewrite_flags(arguments: Sequence[str]) -> list[str]:
    """Dotted flags as what verbs take: `--a.b 1` and `--a.b=1` -> `--set a.b=1`."""
    rewritten: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        key, equals, value = word.partition("=")
        if word == "--":
            return [*rewritten, word, *left]
        if not (key.startswith("--") and "." in key):
            rewritten.append(word)
            continue
        if not equals:
            value = left.pop(0) if left and not left[0].startswith("--") else "true"
        rewritten += ["--set", f"{key[2:]}={value}"]
    return rewritten


def unknown_flag(app: App, verb: str, words: Sequence[str]) -> str | None:
    """What is wrong with the first flag that a verb does not have; None if it has all. Texts may begin with a hyphen,
    so the parser itself would take a misspelled flag for one.
    """
    flags = [word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]]
    flags = [flag for flag in flags if re.fullmatch(r"--[a-z][a-z0-9-]*", flag)]
    if not flags:
        return None
    arguments = app[verb].assemble_argument_collection()
    known = {"--help", *(name for argument in arguments for name in (*argument.names, *argument.negatives))}
    for flag in flags:
        if flag not in known:
            near = difflib.get_close_matches(flag, known, 1)
            return f"{verb} has no flag {flag}{f'; did you mean {near[0]}?' if near else ''}"
    return None


def _explain(verb: str, error: CycloptsError) -> str:
    """A mistake in the words of the command line, with arguments called as in --help."""
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(error.unused_tokens or ())
        return f"{verb} has no use for {words!r}; put quotes around a text of several words"
    argument = getattr(error, "argument", None)
    if isinstance(error, MissingArgumentError) and argument is not None:
        name = argument.names[0]
        if (takes := argument.token_count()[0]) > 1:
            given = len(error.tokens_so_far)
            return f"{verb}: {name} takes {takes} values, one after the other, and got {given}"
        positional = argument.field_info.kind is not argument.field_info.KEYWORD_ONLY
        return f"{verb} needs {name.removeprefix('--').upper() if positional else name}"
    return str(error).rstrip(".")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Exit code 0: done; 1: a bug of ours; 2: the user's mistake, with a way to mend it."""
    from crawltalk.run.console import fail, run_verb
    from crawltalk.run.machine import writable_cache

    app = make_app()
    words = rewrite_flags(sys.argv[1:] if arguments is None else arguments)
    verbs = [verb for group in GROUPS.values() for verb in group]
    if words and not words[0].startswith("-") and words[0] not in verbs:
        near = difflib.get_close_matches(words[0], verbs, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return fail(f"no verb is called {words[0]!r}{hint}; all verbs: crawltalk --help", 2)
    verb = words[0] if words and words[0] in verbs else ""
    if mistake := verb and unknown_flag(app, verb, words[1:]):
        return fail(f"{mistake}; see: crawltalk {verb} --help", 2)
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return fail(f"{_explain(verb, error)}; see: crawltalk{verb and f' {verb}'} --help", 2)

    def call() -> None:
        with writable_cache():
            command(*bound.args, **bound.kwargs)

    return run_verb(call, resumes=verb in RESUMING)


if __name__ == "__main__":
    sys.exit(main())

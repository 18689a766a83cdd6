"""Our ids against those of tiktoken or tokenizers, for real vocabularies, on fuzzed strings and on texts.

    python scripts/check_vocabulary.py --texts FOLDER... --vocabularies FILE...

A vocabulary is a .tiktoken file, named as in tiktoken's registry (cl100k_base.tiktoken), whose patterns and
control tokens then judge ours; or a tokenizer.json, which `tokenizers` reads. Texts are all files of the
folders with a known ending. A fuzzed string mixes the vocabulary's control tokens, whole and cut in two, with
pieces that patterns treat in a special way, words of the texts, and random characters. What `save` writes is
read again, by us and by `tokenizers`. Prints one line of JSON for each vocabulary.
"""

import argparse
import json
import random
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tiktoken_ext.openai_public as registry
import tokenizers
from tiktoken import Encoding
from tiktoken.load import load_tiktoken_bpe

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.tokenizer import Tokenizer

ENDINGS = {".txt", ".tokens", ".md", ".py", ".js", ".c", ".json"}
MARKS = [*"' /_\n\t\x0b\x85\u2028\u3000\0", "  ", "\r\n", "...", *"'s 'S 'ſ 'll 're".split()]  # noqa: SIM905 - short
LETTERS = "a Zebra ǅ ʰ é e\u0301 ſ 中文 한국어 ไทย 🙂 👩\u200d🚀 7 1234567 ٣ Ⅷ \U0010ffff \ufeff".split(" ")  # noqa: SIM905 - short
Encode = Callable[[str], list[int]]


def judge(path: Path) -> tuple[str, Encode]:
    """Another library, and its encoding of ordinary text."""
    if path.suffix == ".tiktoken":
        registry.load_tiktoken_bpe = lambda url, expected_hash: load_tiktoken_bpe(str(path), expected_hash)
        return "tiktoken", Encoding(**registry.ENCODING_CONSTRUCTORS[path.stem]()).encode_ordinary
    data = json.loads(path.read_text(encoding="utf-8"))
    for token in data["added_tokens"]:
        token["special"] = True  # so that `encode_special_tokens` spells all of them
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        peer = tokenizers.Tokenizer.from_file(file.name)
    peer.encode_special_tokens = True
    return "tokenizers", lambda text: peer.encode(text, add_special_tokens=False).ids


def fuzz(count: int, names: list[str], words: list[str], rng: random.Random) -> Iterator[str]:
    """Strings of up to 14 pieces; every control token comes up whole and in halves again and again."""
    for number in range(count):
        name = names[number % len(names)]
        cut = rng.randrange(1, len(name))
        pieces = [rng.choice([name, name[:cut], name[cut:], name[:cut] + " " + name[cut:]])]
        for _ in range(rng.randrange(14)):
            one = "".join(
                chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(3)
            )
            pieces.append(
                rng.choice(
                    [rng.choice(MARKS), rng.choice(LETTERS), rng.choice(words), rng.choice(words), one]
                )
            )
        rng.shuffle(pieces)
        yield "".join(pieces)


def pieces(texts: Iterable[str], size: int = 9_000) -> Iterator[str]:
    """Texts in pieces short enough for every regex engine."""
    return (text[start : start + size] for text in texts for start in range(0, len(text), size))


def check(path: Path, texts: list[str], count: int) -> dict[str, Any]:
    """Compare one vocabulary's ids, one by one and in bulk; count control ids out of ordinary text."""
    made, (name, encode) = Tokenizer.load(path), judge(path)
    rng = random.Random(0)
    words = [word for text in texts[:100] for word in text[:10_000].split(" ")]
    control = set(made.special_tokens.values())
    strings = list(fuzz(count, list(made.special_tokens), words, rng))
    row: dict[str, Any] = {"vocabulary": str(path), "size": made.vocab_size, "judge": name}
    for kind, group in (("fuzz", strings), ("texts", list(pieces(texts)))):
        bulk = [ids.tolist() for ids in made.encode_batch(group)]
        differ = [
            text
            for text, ids in zip(group, bulk, strict=True)
            if not ids == made.encode(text) == encode(text)
        ]
        row |= {kind: len(group), f"{kind}_mb": round(sum(len(text.encode()) for text in group) / 1e6, 2)}
        row |= {
            f"{kind}_differ": len(differ),
            f"{kind}_control_ids": sum(index in control for ids in bulk for index in ids),
        }
        row |= {f"{kind}_first": differ[0][:200]} if differ else {}
    with tempfile.TemporaryDirectory() as folder:
        made.save(folder)
        saved, again = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json"), Tokenizer.load(folder)
        saved.encode_special_tokens = True
        row["saved_differ"] = sum(
            not made.encode(text) == again.encode(text) == saved.encode(text, add_special_tokens=False).ids
            for text in strings
        )
    chat = ChatRenderer(made)
    if chat.format is not None:
        empty = len([index for index in chat.encode_chat([Message("user", "")]) if index in control])
        chats = (chat.encode_chat([Message("user", text)]) for text in strings)
        row["chat_control_ids"] = sum(sum(index in control for index in ids) - empty for ids in chats)
    return row


def main() -> None:
    """Check all that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabularies", type=Path, nargs="+", required=True)
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--fuzz", type=int, default=20_000)
    given = parser.parse_args()
    files = [file for folder in given.texts for file in sorted(folder.rglob("*")) if file.suffix in ENDINGS]
    # a sample of code that is always here
    files += sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    for path in given.vocabularies:
        print(json.dumps(check(path, texts, given.fuzz), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()

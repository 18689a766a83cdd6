"""The page of tokens: its script cuts text as the tokenizer does, and no text breaks out of the page."""

import json
import shutil
import subprocess
from dataclasses import asdict
from functools import cache
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.report.tokens_page import as_json
from crawltalk.tokenizer import Tokenizer, train
from support.tokenizers import NAMES, TEXT, tricky

SCRIPT = files("crawltalk.report").joinpath("tokens/page.js")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")


@cache
def trained(pattern: str) -> Tokenizer:
    return train([TEXT], 600, pattern)


def run(lines: str, data: object) -> list:
    code = f"import {{ Vocabulary, render }} from {json.dumps(str(SCRIPT))};\nconst data = {json.dumps(data)};\n{lines}"
    done = subprocess.run(
        ["node", "--input-type=module", "-"], input=code, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("pattern", NAMES)
@given(texts=st.lists(tricky, min_size=60, max_size=60))
@settings(max_examples=3, deadline=None)
def test_the_script_cuts_as_the_tokenizer_does(pattern, texts):
    made = trained(pattern)
    lines = (
        "const v = new Vocabulary(data.vocabulary);"
        "console.log(JSON.stringify(data.texts.map(text => v.encode(text).map(token => token.id))))"
    )
    assert run(lines, {"vocabulary": as_json("x", made), "texts": texts}) == [
        made.encode(text) for text in texts
    ]


@needs_node
def test_the_script_renders_a_conversation_as_the_tokenizer_does():
    made = trained("gpt4")
    turns = [("system", "Be brief."), ("user", "Hi <|im_end|>"), ("assistant", "Hello.")]
    chat = ChatRenderer(made)
    assert chat.format is not None
    data = {
        "vocabulary": as_json("x", made),
        "chat": asdict(chat.format),
        "messages": [{"role": role, "content": content} for role, content in turns],
    }
    lines = (
        "const v = new Vocabulary(data.vocabulary);"
        "console.log(JSON.stringify(render(v, data.chat, data.messages).map(token => token.id)))"
    )
    assert run(lines, data) == chat.encode_chat(
        [Message(*turn) for turn in turns], add_generation_prompt=True
    )

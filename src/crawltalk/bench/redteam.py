"""bench redteam: steps a second of the search for suffixes, against a plain loop, and what an attempt at an endpoint
costs the client.

The plain loop does what nanogcg 0.3 does, on the same weights in transformers: keys and values of what stands before
the suffix are kept, the gradient goes to one-hot vectors, each candidate is decoded and encoded again by its tokenizer,
and all of them are computed at once, from the first token of the suffix on, with the logits of every position.
"""

import json
import random
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from crawltalk.bench.data import figure
from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.engine import Engine
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.redteam.attacks.gcg import Place, printable_tokens, search
from crawltalk.redteam.attacks.templates import encoding
from crawltalk.redteam.attempts import ATTEMPTS, AttemptLog
from crawltalk.redteam.endpoints import EndpointTarget
from crawltalk.redteam.frame import NO_DEFENSE, Attack, Goal, Prompt, Says, WhiteBox
from crawltalk.redteam.runner import run_cell
from crawltalk.tokenizer.bpe import train

STEPS, WARM = 8, 1
WIDTH, TOP, LENGTH = 512, 256, 20
"""Candidates of a step, the best tokens at each position, tokens of a suffix: nanogcg's defaults."""
REQUEST, OPENING = "What opens the attic door of the old house?", "The attic door opens with"
ATTEMPTS_ASKED = 400


def redteam(runs: int) -> Iterator[dict[str, Any]]:
    """One figure per comparison, as soon as it is known."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as folder:
        box = _write_model(Path(folder))
        rounds = [(_ours(box, seed), _plain_loop(Path(folder), seed)) for seed in range(runs)]
    ours, theirs = ([row[side] for row in rounds] for side in (0, 1))
    yield figure("redteam.gcg", "steps/s", ours, theirs, "plain loop in nanogcg's way, 0.4 M parameters", 1)
    yield figure("redteam.client", "ms", [_client() for _ in range(runs)], None, None, 1)


def _write_model(folder: Path) -> WhiteBox:
    """A random model of 0.4 million parameters, with a tokenizer of words."""
    words = Path(__file__).read_text(encoding="utf-8").split()
    tokenizer = train([" ".join(words), REQUEST, OPENING], 600)
    shape = Shape(
        vocab_size=tokenizer.vocab_size, layers=4, width=96, heads=6, kv_heads=6, head_dim=16, mlp=192, context=512
    )  # fmt: skip
    model = Transformer(shape)
    model.initialize(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight")):
                weight.normal_(
                    0.0, 0.05
                )  # zero at the beginning of a training: nothing would be computed of context
    save_model(model, folder, eos=tokenizer.eot)
    chat = ChatRenderer(tokenizer)
    chat.save(folder)
    return WhiteBox(Engine(model, tokenizer, renderer=chat), model)


def _ours(box: WhiteBox, seed: int) -> float:
    """Steps a CPU second."""
    rng = random.Random(seed)
    place = Place(box, Prompt([Message("user", REQUEST)]))
    steps = search(
        place.loss(OPENING), place.start(rng, LENGTH), printable_tokens(place.tokenizer), place.keeps, rng,
        steps=WARM + STEPS, candidates=WIDTH, top=TOP,
    )  # fmt: skip
    for _ in range(WARM):
        next(steps)
    began = time.process_time()
    done = len(list(steps))
    return done / (time.process_time() - began)


def _plain_loop(folder: Path, seed: int) -> float:
    """The same."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    table = model.get_input_embeddings()
    mark = "<<here>>"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": REQUEST + mark}], tokenize=False, add_generation_prompt=True
    )
    parts = [*text.split(mark), OPENING]
    before, after, wanted = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
    rest, target = torch.tensor([*after, *wanted]), torch.tensor(wanted)
    allowed = torch.tensor(
        [
            index
            for index in range(len(tokenizer))
            if (text := tokenizer.decode([index])).isascii() and text.isprintable()
        ]
    )
    with torch.no_grad():
        cache = model(torch.tensor([before]), use_cache=True).past_key_values
    kept = [(layer.keys, layer.values) for layer in cache.layers]

    def loss_of(embeddings: torch.Tensor) -> torch.Tensor:
        count = len(embeddings)
        expanded = DynamicCache()
        for index, (keys, values) in enumerate(kept):
            expanded.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
        logits = model(inputs_embeds=embeddings, past_key_values=expanded, use_cache=True).logits
        given = logits[:, -len(wanted) - 1 : -1].transpose(1, 2)
        return torch.nn.functional.cross_entropy(given, target.expand(count, -1), reduction="none").mean(1)

    generator = torch.Generator().manual_seed(seed)
    current = allowed[torch.randint(len(allowed), (LENGTH,), generator=generator)]
    began, done = 0.0, 0
    for step in range(WARM + STEPS):
        if step == WARM:
            began = time.process_time()
        one_hot = torch.nn.functional.one_hot(current, table.num_embeddings).float().requires_grad_()
        embeddings = torch.cat((one_hot @ table.weight, table(rest)))[None]
        slope = torch.autograd.grad(loss_of(embeddings).sum(), one_hot)[0]
        best = allowed[(-slope[:, allowed]).topk(min(TOP, len(allowed)), dim=1).indices]
        where = torch.randint(LENGTH, (WIDTH,), generator=generator)
        which = torch.randint(best.shape[1], (WIDTH,), generator=generator)
        drawn = current.repeat(WIDTH, 1)
        drawn[torch.arange(WIDTH), where] = best[where, which]
        again = [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in tokenizer.batch_decode(drawn)
        ]
        same = [ids == row for ids, row in zip(again, drawn.tolist(), strict=True)]
        with torch.no_grad():
            losses = loss_of(torch.cat((table(drawn), table(rest).expand(WIDTH, -1, -1)), 1))
        losses[~torch.tensor(same)] += any(same) * 1e9
        current, done = drawn[losses.argmin()], done + (step >= WARM)
    return done / (time.process_time() - began)


class _Answer(BaseHTTPRequestHandler):
    """An endpoint that answers at once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"data": [{"id": "quick"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send({"choices": [{"message": {"content": "I cannot say that."}}]})

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _send(self, body: dict[str, Any]) -> None:
        sent = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


def _serve(ports: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    ports.put(server.server_address[1])
    server.serve_forever()


def _client() -> float:
    """CPU milliseconds of an attempt, its prompt, verdict and line in the log with it."""
    context = get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=_serve, args=(ports,), daemon=True)
    server.start()
    goals = [
        Goal(
            id=str(number), prompt=Prompt([Message("user", f"What opens door {number}?")]), oracle=Says("abc")
        )
        for number in range(ATTEMPTS_ASKED)
    ]
    attack = Attack(name="base64", family="encoding", run=encoding("base64"))
    try:
        target = EndpointTarget(f"http://127.0.0.1:{ports.get(timeout=60)}/v1")
        with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as folder:
            began = time.process_time()
            with AttemptLog(Path(folder) / ATTEMPTS) as log:
                run_cell(attack, goals, target, NO_DEFENSE, log, budget=1)
            return 1000 * (time.process_time() - began) / ATTEMPTS_ASKED
    finally:
        server.terminate()
        server.join()

"""Many clients, one engine."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.backends import MAX_NUM_SEQS
from crawltalk.engine.service import QueueFull, Service, Stream
from crawltalk.model.transformer import Transformer
from support.engines import MODEL, NEVER, SHAPE, TOKENIZER
from support.models import random_model

LONG = Sampling(max_tokens=40, logit_bias=dict.fromkeys(ChatRenderer(TOKENIZER).stop_ids, -100.0))


def with_service(
    work: Callable[[Service], Awaitable[None]],
    *,
    queue: int = 256,
    grace: float = 5.0,
    model: Transformer = MODEL,
) -> Service:
    """Do something with a service that starts before and stops after it."""
    service = Service(Engine(model, TOKENIZER), queue=queue)

    async def run() -> None:
        service.start()
        try:
            await asyncio.wait_for(work(service), 20)
        finally:
            await service.stop(grace)

    asyncio.run(run())
    return service


async def tokens_of(stream: Stream) -> list[int]:
    return [token.id async for output in stream for token in output.tokens]


def test_each_of_many_clients_gets_what_it_would_get_alone():
    prompts = [[n, 5, 6] for n in range(60)]

    async def work(service: Service) -> None:
        streams = [await service.submit(prompt, LONG) for prompt in prompts]
        replies = await asyncio.gather(*map(tokens_of, streams))
        plain = Engine(MODEL, TOKENIZER)
        assert replies == [plain.generate([prompt], LONG)[0] for prompt in prompts]

    service = with_service(work)
    assert service.stats()["blocks_used"] == 0


def test_a_client_that_leaves_frees_its_blocks_and_the_others_go_on():
    endless = Sampling(max_tokens=3000, logit_bias=LONG.logit_bias)  # none ends before its client leaves

    async def work(service: Service) -> None:
        goes, stays = await service.submit([1], endless), await service.submit([2], LONG)
        await anext(goes)
        await goes.aclose()
        assert len(await tokens_of(stays)) == 40
        task = asyncio.create_task(tokens_of(await service.submit([3], endless)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    service = with_service(work, model=random_model(replace(SHAPE, context=4096)))
    assert service.stats()["cancelled"] == 2
    assert service.stats()["blocks_used"] == 0


def test_a_request_that_comes_when_the_queue_is_full_is_refused():
    async def work(service: Service) -> None:
        streams = [await service.submit([n % 200 + 1], LONG) for n in range(MAX_NUM_SEQS + 3)]
        with pytest.raises(QueueFull):
            await service.submit([1], LONG)
        assert all(len(reply) == 40 for reply in await asyncio.gather(*map(tokens_of, streams)))
        assert len(await tokens_of(await service.submit([1], LONG))) == 40

    with_service(work, queue=3)


def test_what_cannot_be_served_is_refused_at_once():
    async def work(service: Service) -> None:
        with pytest.raises(BadInput, match="maximum context length is 48"):
            await service.submit([1] * 49, LONG)
        with pytest.raises(BadInput, match="maximum context length is 48"):
            await service.embed([[1] * 49])

    with_service(work)


def test_a_service_that_stops_finishes_what_runs_and_cancels_what_takes_too_long():
    async def leave(service: Service) -> None:
        streams.append(await service.submit([1], LONG))
        await asyncio.sleep(0)

    for grace, finish in ((5.0, "length"), (0.0, "cancelled")):
        streams: list[Stream] = []
        service = with_service(leave, grace=grace)
        assert service.stats()["blocks_used"] == 0
        assert service.stats()["cancelled"] == (finish == "cancelled")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails_says_so_to_every_client():
    async def work(service: Service) -> None:
        del service.engine.scheduler.backend
        streams = [await service.submit([n + 1], LONG) for n in range(2)]
        for stream in streams:
            with pytest.raises(AttributeError, match="backend"):
                await tokens_of(stream)
        with pytest.raises(RuntimeError, match="failed"):
            await service.submit([1], LONG)

    with_service(work)


def test_embeddings_are_made_between_steps():
    async def work(service: Service) -> None:
        stream = await service.submit([1], LONG)
        first = await anext(stream)
        found = await service.embed([[1, 2], [3]])
        assert found == Engine(MODEL, TOKENIZER).embed([[1, 2], [3]]).tolist()
        assert len(first.tokens) + len(await tokens_of(stream)) == 40

    with_service(work)


def test_the_probabilities_of_a_prompt_come_with_the_first_output():
    async def work(service: Service) -> None:
        stream = await service.submit([1, 2, 3], Sampling(max_tokens=0, logprobs=2), prompt_logprobs=True)
        output = await anext(stream)
        assert output.finish_reason == "length"
        assert [token.id for token in stream.prompt] == [1, 2, 3]
        assert Engine(MODEL, TOKENIZER).generate([[1]], LONG, NEVER)

    with_service(work)

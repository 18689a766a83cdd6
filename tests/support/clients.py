"""Many clients of a server at once. Imports nothing of crawltalk, so that a process of clients starts fast."""

import asyncio

import httpx


def in_parallel(url: str, count: int, body: dict, path: str = "/v1/chat/completions") -> list[httpx.Response]:
    """The responses to so many equal requests, sent at once."""

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(timeout=60, verify=False) as client:  # one pool for all would be slow
            return await client.post(url + path, json=body)

    async def post_all() -> list[httpx.Response]:
        return await asyncio.gather(*(post() for _ in range(count)))

    return asyncio.run(post_all())


def post_often(url: str, count: int, body: dict) -> None:
    """So many requests, 100 at once; every second hundred is streamed."""
    for number in range(count // 100):
        responses = in_parallel(url, 100, body | {"stream": bool(number % 2)})
        assert {response.status_code for response in responses} == {200}

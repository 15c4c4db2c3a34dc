"""Two deployments of Ray Serve that do nothing but stream: the floor of `benches.ray_hop`, which declares them.

The one with the route passes on what it gets from the handle of the other, which sends lists of frames as a replica of
a model does, joined in the same way.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from ray import serve

from mullama.targets.ray.chunks import coalesced
from mullama.targets.ray.replica import CHUNK_SECONDS

_CHUNK = {
    "id": "chatcmpl-0123456789abcdef01234567", "object": "chat.completion.chunk", "created": 1,
    "model": "a", "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}],
}  # fmt: skip
_FRAME = b"data: %b\n\n" % json.dumps(_CHUNK).encode()
_TEXT = re.compile(r"(slow )?.*?([0-9]+) tokens")


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=100)
class Replica:
    """Streams as many frames as a text asks for, at once or at 100 a second."""

    async def stream(self, text: str) -> AsyncGenerator[list[bytes], None]:
        yield []
        async for some in coalesced(_frames(text), CHUNK_SECONDS):
            yield some


async def _frames(text: str) -> AsyncGenerator[list[bytes], None]:
    slow, count = _TEXT.findall(text)[0]
    for _ in range(int(count)):
        yield [_FRAME]
        await asyncio.sleep(0.01 if slow else 0)


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)
@serve.ingress()
class Gateway:
    """Answers each request with the frames of a replica."""

    def __init__(self, replica: Any) -> None:
        self._replica = replica.options(method_name="stream", stream=True)

    def __serve_build_asgi_app__(self) -> Callable[..., Awaitable[None]]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await self._answer((await receive())["body"], send)

        return app

    async def _answer(self, body: bytes, send: Any) -> None:
        begun = False
        async for some in self._replica.remote(json.loads(body)["messages"][-1]["content"]):
            if some and not begun:
                begun = True
                headers = [(b"content-type", b"text/event-stream")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            if some:
                await send({"type": "http.response.body", "body": b"".join(some), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def build(args: Mapping[str, Any]) -> Any:
    """Return the application."""
    return Gateway.bind(Replica.bind())

"""The tools of a model with the real engine: a first request finds them computed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.runtime.tools.calls import CallRunner
from mullama.runtime.tools.service import ToolService
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of, until
from tests.tools.mcp_stub import McpStub, tool

pytestmark = pytest.mark.anyio


def prefix_of(server: LocalServer) -> str:
    return "".join(prefix.text for prefix in server.snapshot.deployments["a"].options.prefixes)


async def test_a_first_request_computes_its_question_and_no_tool(server: LocalServer) -> None:
    async with McpStub().running() as stub:
        stub.tools = [tool(f"tool_{n:02}", f"Does thing number {n} with care.") for n in range(12)]
        chat_model: dict[str, Any] = {
            "from": "builtin:tiny", "mcp": ["docs"], "system": "Be brief.", "context": {"size": 4096},
            "limits": {"parallel": 1},
        }  # fmt: skip
        done = await server.apply({"a": chat_model}, mcp={"docs": {"url": stub.url}})
        assert done["outcome"] == "applied"
        book = server.reconciler.tools
        service = ToolService(
            server.service, server.service.first_model, book,
            CallRunner(book, server.metrics, server.spans, server.event_log.note, server.captures.add_calls),
        )  # fmt: skip
        worker = server.pool.worker(server.snapshot.deployments["a"].unit)
        assert worker is not None
        await until(lambda: bool(prefix_of(server).count("docs__")))
        asked = chat.TokenizeRequest(model="a", text=prefix_of(server), parse_special=True)
        tokens: Any = await service.answer(asked, CALLER)
        async with asyncio.timeout(60):
            while (await worker.stats()).cells_used < len(tokens.ids) - 5:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        answer: Any = await service.answer(request_of("a", "Hello", max_tokens=1), CALLER)
        usage: chat.Usage = answer.usage
        assert usage.prompt_tokens > 500
        assert usage.prompt_tokens - usage.cached_tokens < 20
        await server.reconciler.stop()

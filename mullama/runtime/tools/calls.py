"""Makes the calls of tools: within their time, with a metric, an event and a span for each."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence

from mullama.chat import types as chat
from mullama.errors import MullamaError, Unavailable
from mullama.runtime.base import Caller, MadeCall, Tracer
from mullama.runtime.metering import ToolCallResult
from mullama.runtime.metrics import Metrics
from mullama.runtime.tools.loop import Offered
from mullama.runtime.tools.offer import Toolbox
from mullama.tools.base import ToolResult
from mullama.trace_context import AttributeValue, Span

_log = logging.getLogger(__name__)

Note = Callable[[str, str, str, tuple[str, ...]], None]
"""Adds an event: kind, subject, message, models."""
Captured = Callable[[str, int, Sequence[MadeCall]], None]
"""Adds the calls of one turn to the captured request: id of the request, number of the turn, calls."""


class CallRunner:
    """The calls of tools of one server process."""

    def __init__(self, toolbox: Toolbox, metrics: Metrics, tracer: Tracer, note: Note, captured: Captured) -> None:
        self._toolbox, self._metrics, self._tracer, self._note = toolbox, metrics, tracer, note
        self.captured = captured

    async def make(
        self, tool: Offered, call: chat.ToolCall, caller: Caller, model: str, left: float | None
    ) -> tuple[ToolResult, float]:
        """Return the result of a call and its seconds. Every failure is a result that the model reads.

        left: the seconds that are left of the request's time; None for no limit.
        """
        begun, result = time.monotonic(), ToolResult(text="", is_error=True)
        outcome: ToolCallResult = "cancelled"
        try:
            outcome, result = await self._made(tool, call, left)
            return result, time.monotonic() - begun
        finally:
            self._report(tool, call, caller, model, outcome, begun, result.text)

    async def _made(self, tool: Offered, call: chat.ToolCall, left: float | None) -> tuple[ToolCallResult, ToolResult]:
        seconds = self._toolbox.seconds(tool.tool.server)
        if left is not None:
            seconds = max(0.0, min(seconds, left))
        arguments = {**({} if isinstance(call.arguments, str) else call.arguments), **dict(tool.fixed)}
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                provider = self._toolbox.provider(tool.tool.server)
                found = await provider.call(tool.tool.name, arguments, seconds=seconds)
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"The call took longer than {seconds:g} s and was ended."
            return "timeout", ToolResult(text=text, is_error=True)
        except MullamaError as error:
            failed: ToolCallResult = "unavailable" if isinstance(error, Unavailable) else "error"
            return failed, ToolResult(text=error.message, is_error=True)
        except Exception as error:  # noqa: BLE001 - the model and the log get it
            _log.error("the tool %s/%s failed", tool.tool.server, tool.tool.name, exc_info=error)
            return "error", ToolResult(text="The tool failed by an internal error.", is_error=True)
        return ("error" if found.is_error else "ok"), found

    def _report(
        self, tool: Offered, call: chat.ToolCall, caller: Caller, model: str, outcome: ToolCallResult, begun: float,
        text: str,
    ) -> None:  # fmt: skip
        now, server, name = time.monotonic(), tool.tool.server, tool.tool.name
        self._metrics.add_tool_call(server, name, outcome, now - begun)
        asked = f"{server}/{name} was called for {model} (request {caller.request_id}, {now - begun:.2f} s)"
        if outcome in ("ok", "cancelled", "error"):
            self._note("tool-call", f"{server}/{name}", f"{asked}: {outcome}", (model,))
        else:
            self._note("tool-failed", f"{server}/{name}", f"{asked}: {text}", (model,))
        trace = caller.trace
        if trace is None or not trace.sampled or not self._tracer.active:
            return
        offset = time.time() - now
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.provider.name": "mullama",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "extension",
            "gen_ai.tool.call.id": call.id,
            "gen_ai.response.model": model,
            "mullama.tool.server": server,
            "mullama.request.id": caller.request_id,
        }
        failed = outcome not in ("ok", "cancelled")
        if failed:
            attributes["error.type"] = outcome
        self._tracer.add(
            Span(
                trace_id=trace.trace_id, span_id=secrets.token_hex(8), parent_id=trace.span_id, state=trace.state,
                name=f"execute_tool {name}", begin=begun + offset, end=now + offset, attributes=attributes,
                error=outcome if failed else None,
            )
        )  # fmt: skip


async def end_tasks(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)

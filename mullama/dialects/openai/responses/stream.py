"""The Responses API's stream of numbered events; its last event contains the complete answer.

One item is open at a time: reasoning, a message, or a call of the client's tools. A delta of another item closes it.
Calls of the server's tools run at the same time, each in a place of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mullama.chat import types
from mullama.chat.answer import unfold
from mullama.chat.citations import numbered
from mullama.dialects.base import Frame, Reply, ReplyContext, ResponseRequest, StreamEvent
from mullama.dialects.fields import Body
from mullama.dialects.openai import web_search
from mullama.dialects.openai.errors import code_of, envelope
from mullama.dialects.openai.native_form import progress_of
from mullama.dialects.openai.responses import mcp
from mullama.dialects.openai.responses.reply import ResponseObject, usage_of
from mullama.dialects.openai.responses.tools import Known, known_tools
from mullama.dialects.openai.streams import EventStream
from mullama.dialects.openai.usage import timings_of
from mullama.dialects.reply_values import encode_text, logprob_entries, prefixed
from mullama.dialects.tools import arguments_object, arguments_text
from mullama.errors import MullamaError
from mullama.names import JSONValue
from mullama.struct import Struct, field, replace

_PREFIX = {
    "reasoning": "rs", "message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "mcp_call": "mcp",
    "mcp_list_tools": "mcpl", "mcp_approval_request": "mcpr", "web_search_call": "ws",
}  # fmt: skip


class _Open(Struct):
    """The open item: its index, its fixed members, its text so far."""

    kind: str
    index: int
    base: dict[str, JSONValue]
    text: list[str] = field(default_factory=list)
    logprobs: list[JSONValue] = field(default_factory=list)
    annotations: list[JSONValue] = field(default_factory=list)

    @property
    def place(self) -> dict[str, JSONValue]:
        return {"item_id": self.base["id"], "output_index": self.index}

    @property
    def written(self) -> str:
        return "".join(self.text)


class ResponseStream(EventStream):
    """Writes created, in_progress, the items in order, then completed, incomplete or failed."""

    def __init__(self, context: ReplyContext[ResponseRequest, Any]) -> None:
        reasoning = Body(context.operation.echo).child("reasoning")
        included = context.operation.echo.get("include")
        self._object = ResponseObject(context)
        self._context = context
        self._tools: dict[str, Known] = {one.tool.name: one for one in known_tools(Body(context.operation.echo))}
        self._summary = bool(reasoning and reasoning.raw("summary") not in (None, "none"))
        self._hidden = isinstance(included, list | tuple) and "reasoning.encrypted_content" in included
        self._number = 0
        self._output: list[JSONValue] = []
        self._item: _Open | None = None
        self._running: dict[str, tuple[int, types.ToolStarted]] = {}  # calls of the server by id, with their places
        self._pages: list[types.ToolEnded] = []  # the results of searches
        self._reason = types.StopReason.STOP
        self._begun = False
        self._timings: dict[str, JSONValue] = {}

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        if isinstance(event, types.Generated):
            if self._context.operation.timed:
                self._timings = {"timings": timings_of(event.usage, event.timings)}
            return ()
        frames = list(self._feed(event))
        if frames and self._timings and isinstance(data := frames[-1].data, dict):
            frames[-1] = replace(frames[-1], data={**data, **self._timings})
            self._timings = {}
        return frames

    def _feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case types.TextDelta():
                return tuple(self._text(event))
            case types.ThinkingDelta():
                return tuple(self._thinking(event.text))
            case types.ToolCallStarted() | types.ToolCallDelta() | types.ToolCallFinished():
                return tuple(self._tool(event))
            case types.ToolsListed() | types.ToolStarted() | types.ToolEnded() | types.ApprovalNeeded():
                return tuple(self._server_tool(event))
            case types.Started(effective=effective):
                self._object.begin(effective)
                return tuple(self._begin())
            case types.PromptProgress() if self._context.operation.progress:
                return (self._progress(event),)
            case types.Finished():
                self._reason = event.reason
                return tuple(self._close(cut=_is_cut(event.reason)))
            case types.Completed() if not self._ended:
                return tuple(self._complete(event))
            case _:
                return ()

    def _event(self, kind: str, **data: JSONValue) -> Frame:
        number = self._number
        self._number += 1
        return Frame(event=kind, data={"type": kind, "sequence_number": number, **data})

    def _begin(self) -> Iterator[Frame]:
        if self._begun:
            return
        self._begun = True
        first = self._object.at("in_progress", [])
        yield self._event("response.created", response=first)
        yield self._event("response.in_progress", response=first)

    def _progress(self, event: types.PromptProgress) -> Frame:
        seen = progress_of(event, timed=self._context.operation.timed)
        return self._event("response.in_progress", response=self._object.at("in_progress", []), **seen)

    # Items.

    def _open(self, kind: str, **base: JSONValue) -> Iterator[Frame]:
        yield from self._close()
        index, id = self._next(kind)
        self._item = _Open(kind, index, {"id": id, "type": kind, **base})
        empty = self._finished_item(self._item, "in_progress")
        yield self._event("response.output_item.added", output_index=index, item=empty)

    def _next(self, kind: str) -> tuple[int, str]:
        """Return the place and the id of the next item."""
        index = len(self._output)
        return index, f"{_PREFIX[kind]}_{self._context.id}_{index:x}"

    def _finished_item(self, item: _Open, status: str) -> dict[str, JSONValue]:
        """Return the item with its text, which is empty while it is in progress."""
        base = {**item.base, "status": status}
        text = item.written
        match item.kind:
            case "message":
                part = [_output_text(item)] if status != "in_progress" else []
                return {**base, "role": "assistant", "content": part}
            case "reasoning":
                return {**base, **self._reasoning(text)}
            case "function_call":
                return {**base, "arguments": text}
            case _:
                return {**base, "input": text}

    def _reasoning(self, text: str) -> dict[str, JSONValue]:
        summary: list[JSONValue] = []
        content: list[JSONValue] = []
        if text and self._summary:
            summary.append({"type": "summary_text", "text": text})
        elif text:
            content.append({"type": "reasoning_text", "text": text})
        item: dict[str, JSONValue] = {"summary": summary, "content": content}
        return {**item, "encrypted_content": encode_text(text) if text else None} if self._hidden else item

    def _close(self, cut: bool = False) -> Iterator[Frame]:
        """End the open item; `cut` marks an item that the end of the answer interrupted."""
        item = self._item
        if item is None:
            return
        self._item = None
        yield from self._part_done(item)
        complete = self._finished_item(item, "incomplete" if cut else "completed")
        self._output.append(complete)
        yield self._event("response.output_item.done", output_index=item.index, item=complete)

    def _part_done(self, item: _Open) -> Iterator[Frame]:
        text, place = item.written, item.place
        match item.kind:
            case "message":
                place = {**place, "content_index": 0}
                yield from self._annotated(item, place)
                yield self._event("response.output_text.done", **place, text=text, logprobs=item.logprobs)
                yield self._event("response.content_part.done", **place, part=_output_text(item))
            case "reasoning" if self._summary:
                place = {**place, "summary_index": 0}
                part: JSONValue = {"type": "summary_text", "text": text}
                yield self._event("response.reasoning_summary_text.done", **place, text=text)
                yield self._event("response.reasoning_summary_part.done", **place, part=part)
            case "reasoning":
                place = {**place, "content_index": 0}
                part = {"type": "reasoning_text", "text": text}
                yield self._event("response.reasoning_text.done", **place, text=text)
                yield self._event("response.content_part.done", **place, part=part)
            case "function_call":
                yield self._event(
                    "response.function_call_arguments.done",
                    **place,
                    name=item.base["name"],
                    arguments=text,
                )
            case _:
                yield self._event("response.custom_tool_call_input.done", **place, input=text)

    def _annotated(self, item: _Open, place: dict[str, JSONValue]) -> Iterator[Frame]:
        """Add the pages that a message names to it."""
        pages = numbered(self._pages)
        item.annotations = web_search.response_annotations(item.written, pages)
        for index, one in enumerate(item.annotations):
            kind = "response.output_text.annotation.added"
            yield self._event(kind, **place, annotation_index=index, annotation=one)

    # Deltas.

    def _text(self, event: types.TextDelta) -> Iterator[Frame]:
        if self._item is None or self._item.kind != "message":
            if not event.text:
                return
            yield from self._open("message")
            yield from self._part("response.content_part.added", "content_index", _EMPTY_TEXT)
        item = self._current()
        tokens = logprob_entries(event.logprobs)
        item.text.append(event.text)
        item.logprobs += tokens
        yield self._event(
            "response.output_text.delta",
            **item.place,
            content_index=0,
            delta=event.text,
            logprobs=tokens,
        )

    def _thinking(self, text: str) -> Iterator[Frame]:
        if self._item is None or self._item.kind != "reasoning":
            yield from self._open("reasoning")
            if self._summary:
                kind, key, part = "reasoning_summary_part", "summary_index", "summary_text"
            else:
                kind, key, part = "content_part", "content_index", "reasoning_text"
            yield from self._part(f"response.{kind}.added", key, {"type": part, "text": ""})
        item = self._current()
        item.text.append(text)
        name, key = (
            ("reasoning_summary_text", "summary_index") if self._summary else ("reasoning_text", "content_index")
        )
        yield self._event(f"response.{name}.delta", **item.place, **{key: 0}, delta=text)

    def _part(self, kind: str, key: str, part: JSONValue) -> Iterator[Frame]:
        yield self._event(kind, **self._current().place, **{key: 0}, part=part)

    def _current(self) -> _Open:
        assert self._item is not None  # every caller has just opened it
        return self._item

    def _tool(self, event: types.ToolCallStarted | types.ToolCallDelta | types.ToolCallFinished) -> Iterator[Frame]:
        match event:
            case types.ToolCallStarted():
                yield from self._open_call(event)
            case types.ToolCallDelta():
                if self._current().kind == "function_call":
                    yield self._arguments("function_call_arguments", event.text)
            case types.ToolCallFinished():
                item = self._current()
                if item.kind == "custom_tool_call":
                    free = arguments_object(event.call).get("input")
                    yield self._arguments("custom_tool_call_input", str(free or ""))
                elif not item.text:
                    complete = arguments_text(event.call)
                    yield self._arguments("function_call_arguments", complete)
                yield from self._close(cut=isinstance(event.call.arguments, str))

    def _open_call(self, event: types.ToolCallStarted) -> Iterator[Frame]:
        known = self._tools.get(event.name)
        kind = "custom_tool_call" if known and known.custom else "function_call"
        space: dict[str, JSONValue] = {"namespace": known.namespace} if known and known.namespace else {}
        name = known.name if known else event.name
        yield from self._open(kind, call_id=prefixed(event.id, "call_"), name=name, **space)

    def _arguments(self, name: str, text: str) -> Frame:
        item = self._current()
        item.text.append(text)
        return self._event(f"response.{name}.delta", **item.place, delta=text)

    # Tools that the server calls.

    def _server_tool(self, event: types.ToolEvent) -> Iterator[Frame]:
        match event:
            case types.ToolsListed():
                yield from self._listed(event)
            case types.ToolStarted():
                yield from self._call_started(event)
            case types.ToolEnded():
                yield from self._call_ended(event)
            case types.ApprovalNeeded():
                yield from self._close()
                index, id = self._next("mcp_approval_request")
                item = mcp.approval_item(id, event)
                self._output.append(item)
                yield self._event("response.output_item.added", output_index=index, item=item)
                yield self._event("response.output_item.done", output_index=index, item=item)

    def _listed(self, event: types.ToolsListed) -> Iterator[Frame]:
        yield from self._close()
        index, id = self._next("mcp_list_tools")
        item = mcp.list_item(id, event)
        place: dict[str, JSONValue] = {"item_id": id, "output_index": index}
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=index, item={**item, "tools": []})
        yield self._event("response.mcp_list_tools.in_progress", **place)
        yield self._event(f"response.mcp_list_tools.{'failed' if event.error else 'completed'}", **place)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _call_started(self, event: types.ToolStarted) -> Iterator[Frame]:
        yield from self._close()
        index, id = self._next("web_search_call" if event.search else "mcp_call")
        item = _call_item(id, event, None)
        place: dict[str, JSONValue] = {"item_id": id, "output_index": index}
        self._output.append(item)
        self._running[event.id] = (index, event)
        if event.search:
            yield self._event("response.output_item.added", output_index=index, item=item)
            yield self._event("response.web_search_call.in_progress", **place)
            yield self._event("response.web_search_call.searching", **place)
            return
        yield self._event("response.output_item.added", output_index=index, item={**item, "arguments": ""})
        yield self._event("response.mcp_call.in_progress", **place)
        yield self._event("response.mcp_call_arguments.delta", **place, delta=item["arguments"])
        yield self._event("response.mcp_call_arguments.done", **place, arguments=item["arguments"])

    def _call_ended(self, event: types.ToolEnded) -> Iterator[Frame]:
        index, started = self._running.pop(event.id)
        id = self._id_at(index, started)
        item = self._output[index] = _call_item(id, started, event)
        if started.search:
            self._pages.append(event)
            yield self._event("response.web_search_call.completed", item_id=id, output_index=index)
        else:
            outcome = "failed" if event.is_error else "completed"
            yield self._event(f"response.mcp_call.{outcome}", item_id=id, output_index=index)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _end_calls(self) -> Iterator[Frame]:
        """End the calls that the end of the answer interrupts."""
        for index, started in self._running.values():
            item = self._output[index] = _call_item(self._id_at(index, started), started, None, "incomplete")
            yield self._event("response.output_item.done", output_index=index, item=item)
        self._running = {}

    def _id_at(self, index: int, started: types.ToolStarted) -> str:
        kind = "web_search_call" if started.search else "mcp_call"
        return f"{_PREFIX[kind]}_{self._context.id}_{index:x}"

    # The end.

    def _complete(self, event: types.Completed) -> Iterator[Frame]:
        self._ended = True
        yield from self._begin()
        yield from self._close()
        cut = _is_cut(self._reason)
        limit = "max_tool_calls" if self._reason is types.StopReason.TOOL_LIMIT else "max_output_tokens"
        status = "incomplete" if cut else "completed"
        complete = self._object.at(
            status,
            list(self._output),
            completed_at=None if cut else int(self._context.created + event.timings.total),
            usage=usage_of(event.usage),
            incomplete={"reason": limit} if cut else None,
        )
        self._timings = {"timings": timings_of(event.usage, event.timings)}
        self.whole = complete
        yield self._event(f"response.{status}", response=complete)

    def _failed(self, error: MullamaError) -> Iterator[Frame]:
        """Yield the error in both forms that clients read, then the terminal event."""
        yield from self._begin()
        yield from self._close(cut=True)
        yield from self._end_calls()
        inner = envelope(error)
        flat = {key: inner[key] for key in ("code", "message", "param")}
        yield self._event("error", **flat, error=inner)
        cause: JSONValue = {"code": code_of(error) or "server_error", "message": inner["message"]}
        self.whole = complete = self._object.at("failed", list(self._output), error=cause)
        yield self._event("response.failed", response=complete)

    # Responses that are generated in the background.

    def at(self, status: str) -> dict[str, JSONValue]:
        """Return the response with its finished items and running calls, in a status before its end."""
        return self._object.at(status, list(self._output))

    def cancel(self) -> Iterable[Frame]:
        """Return the frames of an answer that its client cancels."""
        if self._ended:
            return ()
        self._ended = True
        return tuple(self._cancelled())

    def _cancelled(self) -> Iterator[Frame]:
        yield from self._begin()
        yield from self._close(cut=True)
        yield from self._end_calls()
        self.whole = complete = self._object.at("cancelled", list(self._output))
        yield self._event("response.incomplete", response=complete)


_EMPTY_TEXT: JSONValue = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _output_text(item: _Open) -> JSONValue:
    return {
        "type": "output_text",
        "text": item.written,
        "annotations": item.annotations,
        "logprobs": list(item.logprobs),
    }


def _call_item(
    id: str, started: types.ToolStarted, ended: types.ToolEnded | None, status: str = ""
) -> dict[str, JSONValue]:
    """Return the item of a call that the server makes: of a search of the web, or of a tool of a server."""
    if started.search:
        return web_search.call_item(id, started, ended, status)
    return mcp.call_item(id, started, ended, status)


def _is_cut(reason: types.StopReason) -> bool:
    return reason in (types.StopReason.LENGTH, types.StopReason.TOOL_LIMIT, types.StopReason.CANCELLED)


def encode(context: ReplyContext[ResponseRequest, types.Answer]) -> Reply:
    """Return the complete answer: the object in the last event of a stream of the same events."""
    stream = ResponseStream(context)
    for event in unfold(context.result):
        for _ in stream.feed(event):
            pass
    return Reply(body=stream.whole)

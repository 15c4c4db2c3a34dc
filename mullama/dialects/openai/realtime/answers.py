"""The events of one realtime response, from the events of its completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from mullama.chat import types
from mullama.dialects.openai.errors import code_of, envelope
from mullama.dialects.openai.realtime.items import ConversationItem
from mullama.errors import MullamaError
from mullama.names import JSONValue
from mullama.struct import Struct, field, replace

WireEvent = dict[str, JSONValue]
"""A message of the server without its `event_id`."""
Status = Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]
CancelReason = Literal["client_cancelled", "turn_detected"]


class _Open(Struct):
    """The item that is being written."""

    item: ConversationItem
    index: int
    call: int = -1
    """The index of a call among the calls of the answer."""
    text: list[str] = field(default_factory=list)


class AnswerWriter:
    """Writes the events of one response, from `response.created` to `response.done`.

    Args:
        id: of the response.
        stored: its items are added to the conversation.
        head: members that the response object repeats.
    """

    def __init__(self, id: str, *, stored: bool, head: Mapping[str, JSONValue]) -> None:
        self.id = id
        self.stored = stored
        self.done = False
        self.items: list[ConversationItem] = []
        self._head = head
        self._open: _Open | None = None
        self._usage: types.Usage | None = None
        self._reason = types.StopReason.STOP

    def created(self) -> WireEvent:
        """Return the first event."""
        return {"type": "response.created", "response": self._object("in_progress")}

    def feed(self, event: types.Event) -> Iterator[WireEvent]:
        """Yield the events that one event of the completion causes."""
        match event:
            case types.Started():
                self._usage = types.Usage(prompt_tokens=event.prompt_tokens, cached_tokens=event.cached_tokens)
            case types.Generated():
                self._usage = event.usage
            case types.TextDelta() if event.text:
                yield from self._text(event.text)
            case types.ToolCallStarted():
                yield from self._begin(
                    ConversationItem(id=self._item_id(), kind="function_call", name=event.name, call_id=event.id),
                    call=event.index,
                )
            case types.ToolCallDelta() if self._open is not None and self._open.call == event.index:
                self._open.text.append(event.text)
                yield self._at(
                    "response.function_call_arguments.delta", call_id=self._open.item.call_id, delta=event.text
                )
            case types.ToolCallFinished() if self._open is not None and self._open.call == event.index:
                yield from self._end("completed")
            case types.ToolStarted():
                yield from self._end("completed")
            case types.Finished():
                self._reason = event.reason
                yield from self._end("incomplete" if event.reason is types.StopReason.LENGTH else "completed")
            case types.Completed():
                self._usage = event.usage
                yield from self._complete()
            case _:
                pass

    def cancel(self, reason: CancelReason) -> Iterator[WireEvent]:
        """Yield the last events of a response that is cancelled."""
        yield from self._end("incomplete")
        yield self._last("cancelled", {"type": "cancelled", "reason": reason})

    def fail(self, error: MullamaError) -> Iterator[WireEvent]:
        """Yield the last events of a response that failed."""
        yield from self._end("incomplete")
        seen = envelope(error)
        shown = {"type": seen["type"], "code": code_of(error), "message": seen["message"]}
        yield self._last("failed", {"type": "failed", "error": shown})

    def _complete(self) -> Iterator[WireEvent]:
        if self.done:
            return
        if self._reason is types.StopReason.LENGTH:
            yield self._last("incomplete", {"type": "incomplete", "reason": "max_output_tokens"})
        else:
            yield self._last("completed", {"type": "completed"})

    def _last(self, status: Status, details: dict[str, JSONValue]) -> WireEvent:
        self.done = True
        return {"type": "response.done", "response": self._object(status, details)}

    def _object(self, status: Status, details: JSONValue = None) -> dict[str, JSONValue]:
        usage = self._usage if status != "in_progress" else None
        return {
            "id": self.id, "object": "realtime.response", "status": status, "status_details": details,
            "output": [item.shown() for item in self.items], **self._head,
            "usage": _usage_of(usage) if usage else None,
        }  # fmt: skip

    # Items

    def _item_id(self) -> str:
        return f"item_{self.id.removeprefix('resp_')}_{len(self.items):x}"

    def _text(self, text: str) -> Iterator[WireEvent]:
        if self._open is None or self._open.item.kind != "message":
            yield from self._begin(ConversationItem(id=self._item_id(), role="assistant"))
            yield self._at("response.content_part.added", content_index=0, part={"type": "text", "text": ""})
        assert self._open is not None
        self._open.text.append(text)
        yield self._at("response.output_text.delta", content_index=0, delta=text)

    def _begin(self, item: ConversationItem, call: int = -1) -> Iterator[WireEvent]:
        yield from self._end("completed")
        item = replace(item, status="in_progress")
        self._open = _Open(item=item, index=len(self.items), call=call)
        self.items.append(item)
        yield self._of_item("response.output_item.added", item)

    def _end(self, status: str) -> Iterator[WireEvent]:
        """End the open item."""
        if self._open is None:
            return
        text = "".join(self._open.text)
        if self._open.item.kind == "message":
            item = replace(self._open.item, status=status, parts=(types.TextPart(text=text),))
            yield self._at("response.output_text.done", content_index=0, text=text)
            yield self._at("response.content_part.done", content_index=0, part={"type": "text", "text": text})
        else:
            item = replace(self._open.item, status=status, text=text)
            call = {"call_id": item.call_id, "name": item.name}
            yield self._at("response.function_call_arguments.done", **call, arguments=text)
        self.items[self._open.index] = item
        yield self._of_item("response.output_item.done", item)
        self._open = None

    def _of_item(self, kind: str, item: ConversationItem) -> WireEvent:
        assert self._open is not None
        return {"type": kind, "response_id": self.id, "output_index": self._open.index, "item": item.shown()}

    def _at(self, kind: str, **members: JSONValue) -> WireEvent:
        """Return an event about the open item."""
        assert self._open is not None
        place: WireEvent = {
            "response_id": self.id, "item_id": self._open.item.id, "output_index": self._open.index,
        }  # fmt: skip
        return {"type": kind, **place, **members}


def _usage_of(usage: types.Usage) -> dict[str, JSONValue]:
    return {
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "input_token_details": {"cached_tokens": usage.cached_tokens},
        "output_token_details": {"text_tokens": usage.completion_tokens},
    }

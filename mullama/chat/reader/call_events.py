"""Collects the events of tool calls while a parser reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mullama.chat.reader.char_stream import Malformed
from mullama.chat.reader.json_text import dumps, loads
from mullama.chat.types import Event, Tool, ToolCall, ToolCallDelta, ToolCallFinished, ToolCallStarted
from mullama.names import JSONValue


class CallEvents:
    """Events so far, with one call open at most; fragments are joined until they are taken."""

    def __init__(self, new_id: Callable[[], str], tools: Mapping[str, Tool], choice: int) -> None:
        self.tools = tools
        self.on_finish: Callable[[], None] = lambda: None
        self._new_id = new_id
        self._choice = choice
        self._index = -1
        self._call: tuple[str, str] | None = None
        self._arguments: list[str] = []
        self._fresh: list[str] = []
        self._events: list[Event] = []

    def start(self, name: str) -> None:
        """A call of this tool begins; Malformed for what cannot be a name."""
        if not name or len(name) > 256 or self._call is not None:
            raise Malformed
        self._index += 1
        self._call = (self._new_id(), name)
        self._arguments.clear()
        self._events.append(ToolCallStarted(index=self._index, id=self._call[0], name=name, choice=self._choice))

    def write(self, text: str) -> None:
        """A further piece of the arguments' JSON text."""
        if text:
            self._arguments.append(text)
            self._fresh.append(text)

    def finish(self) -> None:
        """The arguments are complete; Malformed when they are no object."""
        if self._call is None:
            raise Malformed
        arguments = loads("".join(self._arguments))
        if not isinstance(arguments, Mapping):
            raise Malformed
        self._flush()
        call = ToolCall(id=self._call[0], name=self._call[1], arguments=arguments)
        self._events.append(ToolCallFinished(index=self._index, call=call, choice=self._choice))
        self._call = None
        self.on_finish()

    def whole(self, name: str, arguments: JSONValue) -> None:
        """A call that is known all at once."""
        if not isinstance(arguments, Mapping):
            raise Malformed
        self.start(name)
        self.write(dumps(arguments))
        self.finish()

    def abandon(self) -> None:
        """The call that was begun turned out to be none."""
        self._flush()
        self._call = None

    def take(self) -> list[Event]:
        """The events since the last time."""
        self._flush()
        events = list(self._events)
        self._events.clear()
        return events

    def schema_of(self, tool: str, key: str) -> JSONValue:
        """The schema of one argument of a tool, None when the client did not give it."""
        declared = self.tools.get(tool)
        properties = (declared.parameters or {}).get("properties") if declared else None
        return properties.get(key) if isinstance(properties, Mapping) else None

    def _flush(self) -> None:
        if self._fresh:
            text = "".join(self._fresh)
            self._fresh.clear()
            self._events.append(ToolCallDelta(index=self._index, text=text, choice=self._choice))

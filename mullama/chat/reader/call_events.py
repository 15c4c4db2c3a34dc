"""Collects the events of tool calls while a parser reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mullama.chat.reader.char_stream import Malformed
from mullama.chat.reader.json_text import dumps, loads, object_of
from mullama.chat.schema_types import SchemaTypes, ValueTypes
from mullama.chat.types import Event, Tool, ToolCall, ToolCallDelta, ToolCallFinished, ToolCallStarted
from mullama.names import JSONValue


class CallEvents:
    """The events so far, with one open call at most. Fragments are joined until they are taken."""

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
        self._types: dict[str, SchemaTypes] = {}

    @property
    def is_open(self) -> bool:
        """True while a call has begun and not ended."""
        return self._call is not None

    def start(self, name: str) -> None:
        """Begin a call of this tool; raise `Malformed` for a text that cannot be a name."""
        if not name or len(name) > 256 or self._call is not None:
            raise Malformed
        self._index += 1
        self._call = (self._new_id(), name)
        self._arguments.clear()
        self._events.append(ToolCallStarted(index=self._index, id=self._call[0], name=name, choice=self._choice))

    def write(self, text: str) -> None:
        """Add a piece of the JSON text of the arguments."""
        if text:
            self._arguments.append(text)
            self._fresh.append(text)

    def finish(self) -> None:
        """End the arguments; raise `Malformed` for JSON that is not an object."""
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
        """Add a complete call."""
        if not isinstance(arguments, Mapping):
            raise Malformed
        self.start(name)
        self.write(dumps(arguments))
        self.finish()

    def cut(self) -> bool:
        """End the open call with the arguments as they are; return False when no call is open."""
        if self._call is None:
            return False
        self._flush()
        text = "".join(self._arguments)
        found = object_of(text)
        call = ToolCall(id=self._call[0], name=self._call[1], arguments=text if found is None else found)
        self._events.append(ToolCallFinished(index=self._index, call=call, choice=self._choice))
        self._call = None
        return True

    def take(self) -> list[Event]:
        """Return the events since the last call of `take`."""
        self._flush()
        events = list(self._events)
        self._events.clear()
        return events

    def types_of(self, tool: str, key: str) -> ValueTypes:
        """Return the types of one argument of a tool."""
        if tool not in self._types:
            declared = self.tools.get(tool)
            self._types[tool] = SchemaTypes(declared.parameters if declared else None)
        return self._types[tool].of_property(key)

    def _flush(self) -> None:
        if self._fresh:
            text = "".join(self._fresh)
            self._fresh.clear()
            self._events.append(ToolCallDelta(index=self._index, text=text, choice=self._choice))

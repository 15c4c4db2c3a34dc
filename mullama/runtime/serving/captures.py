"""The last requests with their prompts, answers and times: a list bounded by bytes, for an administrator to look at.

Off unless the manifest declares `observability.captures`: prompts and answers are other people's texts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from mullama.chat import types as chat
from mullama.errors import MullamaError, masked, masked_tree
from mullama.manifest.spec import Captures
from mullama.runtime.base import Caller, MadeCall
from mullama.runtime.metering import RequestResult
from mullama.struct import Struct, asdict, replace
from mullama.units import size

_OWN_BYTES = 2048
"""The bytes of a capture without its texts, about."""
_CHARACTER = 4  # bytes, at most; the bound holds for any text
_SHARE = 4
"""One text may use this part of all bytes; a longer one keeps its end, where a conversation has its last turns."""


_NOT_KEPT = "observability.captures.bodies keeps no bodies of such requests"


class Capture(Struct, frozen=True, kw_only=True):
    """One attempt to answer a request. Times in seconds."""

    id: int
    request: str
    """The id in the headers of the answer and in the log."""
    when: float
    """Unix time of the arrival."""
    key: str | None
    dialect: str
    route: str
    """The name that the request used."""
    model: str
    result: RequestResult
    seconds: float
    first_token: float | None
    """From the arrival; None for an answer without text."""
    timings: chat.Timings
    usage: chat.Usage
    finish: tuple[str, ...] = ()
    """The reason for the end of each choice."""
    error: tuple[str, str] | None = None
    """Kind and message."""
    prompt: str | None = None
    """As the template rendered it; None if bodies are not kept."""
    answer: str | None = None
    """The text of all choices with the reasoning; None as `prompt`."""
    generation: int = 0
    """The generation of the manifest at the arrival."""
    path: str | None = None
    """The path of the request with its query; None as `body`."""
    body: bytes | None = None
    """The JSON that the client sent, complete, so that the request can be sent again; None with the reason in
    `omitted`."""
    omitted: str = ""
    turn: int = 0
    """See `Caller.turn`."""
    calls: tuple[MadeCall, ...] = ()
    """The calls of tools that this server made for the answer, with their arguments and results; in the first turn of
    a request that approves calls also those."""
    masked: bool = False
    """Secrets in addresses are missing in the body, so a request that is sent again has none of them either."""

    def tree(self, *, texts: bool) -> dict[str, Any]:
        """Return the published form, with or without the texts."""
        tree = asdict(self) | {"timings": asdict(self.timings), "usage": asdict(self.usage)}
        tree["error"] = {"kind": self.error[0], "message": self.error[1]} if self.error else None
        tree["kept"] = self.prompt is not None
        tree["calls"] = [_call_tree(call, texts=texts) for call in self.calls]
        tree["body"] = None if self.body is None else self.body.decode()
        if not texts:
            del tree["prompt"], tree["answer"], tree["body"]
        return tree


class Recording:
    """Collects one attempt while it runs."""

    def __init__(
        self, log: CaptureLog, request: chat.ChatRequest | chat.CompletionRequest, caller: Caller, generation: int
    ) -> None:
        self._log, self._caller, self._request, self._generation = log, caller, request, generation
        self._when, self._begun = time.time(), time.monotonic()
        self._first: float | None = None
        self._texts: list[str] | None = [] if log.settings.bodies != "none" else None
        self._finish: list[str] = []
        self._timings = chat.Timings()

    def take(self, events: Iterable[chat.Event]) -> None:
        """Note the events of the answer."""
        for event in events:
            match event:
                case chat.TextDelta(text=text) | chat.ThinkingDelta(text=text):
                    if self._first is None:
                        self._first = time.monotonic() - self._begun
                    if self._texts is not None:
                        self._texts.append(text)
                case chat.Finished(reason=reason):
                    self._finish.append(reason)
                case chat.Completed(timings=timings):
                    self._timings = timings
                case _:
                    pass

    def end(self, error: BaseException | None, *, model: str, prompt: str, usage: chat.Usage) -> None:
        """Add the capture to the list. error: the reason of the end; None for a complete answer."""
        result: RequestResult = "ok" if error is None else "error" if isinstance(error, MullamaError) else "cancelled"
        kept = self._texts is not None and (self._log.settings.bodies == "all" or result == "error")
        sent = self._caller.sent
        body, omitted, hidden = self._log.whole(sent.body if sent else b"") if kept else (None, _NOT_KEPT, False)
        self._log.add(
            Capture(
                id=self._log.next_id(),
                request=self._caller.request_id,
                when=self._when,
                key=self._caller.key,
                dialect=self._caller.dialect,
                route=self._caller.route or self._request.model,
                model=model,
                result=result,
                seconds=time.monotonic() - self._begun,
                first_token=self._first,
                timings=self._timings,
                usage=usage,
                finish=tuple(self._finish),
                error=(error.kind.value, error.message) if isinstance(error, MullamaError) else None,
                prompt=self._log.cut(prompt) if kept else None,
                answer=self._log.cut("".join(self._texts or ())) if kept else None,
                generation=self._generation,
                turn=self._caller.turn,
                calls=tuple(self._log.call(call, kept=kept) for call in self._caller.calls),
                path=sent.path if sent and body is not None else None,
                body=body,
                omitted=omitted,
                masked=hidden,
            )
        )


class CaptureLog:
    """The captures, oldest first. Belongs to the event loop.

    declared: returns the block of the manifest in force, None for no captures.
    """

    def __init__(self, declared: Callable[[], Captures | None]) -> None:
        self._declared = declared
        self._kept: deque[Capture] = deque()
        self._bytes = self._last = 0
        self._added = asyncio.Event()

    @property
    def settings(self) -> Captures:
        """The declared block; its defaults after it was removed."""
        return self._declared() or Captures()

    def begin(
        self, request: chat.ChatRequest | chat.CompletionRequest, caller: Caller, generation: int
    ) -> Recording | None:
        """Return a new recording; None if nothing is captured."""
        if self._declared() is None:
            if self._kept:
                self._kept.clear()
                self._bytes = 0
            return None
        return Recording(self, request, caller, generation)

    def next_id(self) -> int:
        self._last += 1
        return self._last

    def cut(self, text: str) -> str:
        """Return the text without secrets in addresses, and the end of one that is too long."""
        most = self.settings.size // (_SHARE * _CHARACTER)
        return masked(text if len(text) <= most else "…" + text[-most:])

    def call(self, call: MadeCall, *, kept: bool) -> MadeCall:
        """Return a call with its texts as `cut` leaves them, or without texts if bodies are not kept."""
        if not kept:
            return replace(call, arguments={}, text="")
        return replace(call, arguments=masked_tree(call.arguments), text=self.cut(call.text))

    def whole(self, raw: bytes) -> tuple[bytes | None, str, bool]:
        """Return a body without secrets in addresses, or None and the reason; and True if there were secrets."""
        if not raw:
            return None, "it has no body of its own: it is part of a session, a transcription or an answer", False
        if len(raw) > (most := self.settings.size // _SHARE):
            return None, f"its body has {size(len(raw))}, and a capture keeps at most {size(most)}", False
        if b"://" not in raw:
            return raw, "", False
        shown = masked(raw.decode("utf-8", "replace")).encode()
        return shown, "", shown != raw

    def add(self, capture: Capture) -> None:
        """Keep a capture, and drop the oldest ones beyond the bound."""
        if self._declared() is None:
            return
        self._kept.append(capture)
        self._bytes += _bytes_of(capture)
        self._bound()
        self._added.set()
        self._added = asyncio.Event()

    def _bound(self) -> None:
        while self._bytes > self.settings.size and self._kept:
            self._bytes -= _bytes_of(self._kept.popleft())

    def add_calls(self, request: str, turn: int, calls: Iterable[MadeCall]) -> None:
        """Add the calls that a turn of a request asked for to its capture, which was added at the end of the turn."""
        for index in range(len(self._kept) - 1, -1, -1):
            found = self._kept[index]
            if (found.request, found.turn) == (request, turn):
                kept = tuple(self.call(call, kept=found.prompt is not None) for call in calls)
                self._kept[index] = replace(found, calls=(*found.calls, *kept))
                self._bytes += _bytes_of(self._kept[index]) - _bytes_of(found)
                self._bound()
                return

    def list(self) -> Sequence[Capture]:
        """Return the captures, newest first."""
        return tuple(reversed(self._kept)) if self._declared() is not None else ()

    async def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the captures after this id without their texts, then each new one; endless."""
        while True:
            added = self._added
            for capture in [c for c in self._kept if c.id > after]:
                after = capture.id
                yield capture.tree(texts=False)
            await added.wait()


def _bytes_of(capture: Capture) -> int:
    texts = len(capture.prompt or "") + len(capture.answer or "")
    texts += sum(len(call.text) + len(json.dumps(call.arguments)) for call in capture.calls)
    return _OWN_BYTES + _CHARACTER * texts + len(capture.body or b"")


def _call_tree(call: MadeCall, *, texts: bool) -> dict[str, Any]:
    """Return the published form of a call of a tool."""
    tree = asdict(call)
    if not texts:
        del tree["arguments"], tree["text"]
    return tree

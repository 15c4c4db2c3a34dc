"""Work beside the event loop of the page: requests block, so each runs on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from textual.app import App
from textual.message import Message

from mullama.cli.app.exit_codes import as_mullama_error
from mullama.errors import MullamaError

_Result = TypeVar("_Result")


class PageCall(Message, bubble=False):
    """A call that a thread hands to the event loop."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self.call = call


def hand_over(app: App[Any], call: Callable[[], object]) -> None:
    """Let the event loop of the page make a call. Nothing happens after the page is closed."""
    with suppress(RuntimeError):  # the loop is closed
        app.post_message(PageCall(call))


def in_background(
    app: App[Any],
    work: Callable[[], _Result],
    then: Callable[[_Result], object],
    failed: Callable[[MullamaError], object],
) -> None:
    """Do the work on a thread, then call `then` with its result or `failed` with its error on the event loop."""

    def run() -> None:
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - shown by the page
            hand_over(app, partial(failed, as_mullama_error(raised)))
        else:
            hand_over(app, partial(then, result))

    _start(run)


def streamed(
    app: App[Any],
    pieces: Callable[[], Iterator[_Result]],
    each: Callable[[_Result], object],
    ended: Callable[[MullamaError | None], object],
) -> None:
    """Read pieces on a thread: `each` gets them on the event loop, `ended` the error that ended them or None."""

    def run() -> None:
        error: MullamaError | None = None
        try:
            for piece in pieces():
                hand_over(app, partial(each, piece))
        except Exception as raised:  # noqa: BLE001 - shown by the page
            error = as_mullama_error(raised)
        hand_over(app, partial(ended, error))

    _start(run)


def _start(run: Callable[[], None]) -> None:
    # A daemon: a request that waits for a slow server does not keep the command from ending.
    threading.Thread(target=run, name="page request", daemon=True).start()

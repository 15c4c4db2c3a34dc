"""Work on large values outside the event loop, so that one request does not delay the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LARGE = 64 * 1024
"""Bytes or values. Below it the work takes a few milliseconds, little more than the switch to a thread."""


async def compute(size: int, work: Callable[..., T], *arguments: object) -> T:
    """Return `work(*arguments)`, computed in a thread if its `size`, in bytes or values, is `LARGE` or more.

    The work must be pure. A thread leaves the interpreter to the event loop every few milliseconds, but not during one
    call into C: the work divides a long one.
    """
    if size < LARGE:
        return work(*arguments)
    import asyncio  # the processes of workers use `LARGE` alone

    return await asyncio.to_thread(work, *arguments)

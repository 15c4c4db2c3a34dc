"""Decides which requests are in a pool of cells that is smaller than the sum of all that they may need (pure).

A request begins when the pool has room for its prompt and a reserve, next to those that run. When the pool runs out,
the youngest request is set aside until there is room again. Three rules keep this fair:

- A request that is set aside is resumed before a younger one begins, and waiting ones begin in their order.
- The oldest request is never set aside. The pool has at least the cells of one whole request, so the oldest always
  advances and ends, and then the next one is the oldest. So every request ends.
- A request begins or is resumed only where every running one keeps its reserve. So a request advances by at least the
  reserve before the next one is set aside, and the cost of a set-aside is spread over as many tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mullama.struct import Struct

_RESERVE_SHARE, _LEAST_RESERVE = 16, 64
_COPY_SPEED = 2e9  # bytes per second that any memory copies; a state is copied out and back


class Demand(Struct, frozen=True, kw_only=True):
    """The cells that one request needs beside those that it holds."""

    pending: int
    """Tokens that are known and have no cells yet."""
    left: int
    """Further tokens that the answer may have."""

    def promised(self, reserve: int) -> int:
        """Return the cells that are kept free for the request."""
        return self.pending + min(max(self.left, 0), reserve)


def reserve_of(size: int) -> int:
    """Return the tokens of an answer that a request must have room for. size: most tokens of one request."""
    return min(size, max(_LEAST_RESERVE, size // _RESERVE_SHARE))


def may_begin(new: Demand, running: Iterable[Demand], *, free: int, reserve: int) -> bool:
    """Return True if a request may begin, or be resumed, next to the running ones.

    free: cells that no running request and no declared prefix holds. A request alone always begins.
    """
    others = list(running)
    return not others or new.promised(reserve) + sum(d.promised(reserve) for d in others) <= free


def to_set_aside(running: Sequence[int]) -> int | None:
    """Return the request to set aside: the youngest; None where only the oldest runs. running: oldest first."""
    return running[-1] if len(running) > 1 else None


def recompute(tokens: int, size: int, room: int, token_seconds: float | None) -> bool:
    """Return True if it is cheaper to compute these tokens again than to keep their state in main memory.

    size: bytes of the state; room: bytes that states may still take; token_seconds: to compute one token of a prompt,
    None while it is not known.
    """
    if size > room:
        return True
    return token_seconds is not None and tokens * token_seconds <= 2 * size / _COPY_SPEED

"""Checkpoints: saved states of the part of a sequence that cannot be cut, and the choice of those to keep.

A recurrent state, and a sliding window, exist for the last position of a sequence only. A checkpoint is a copy of them
at one position of a prompt, from which another prompt with the same beginning continues.

This module decides and counts; it reads no memory of llama.cpp. States are opaque bytes, which `partial_states` takes
and restores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from mullama.engines.base import CheckpointStats
from mullama.struct import Struct

WORTH_KEEPING = 64  # tokens; a checkpoint saves at least as many
LEAST_STEP = 512  # tokens between the checkpoints of a long prompt
LONGEST_OPENING = 32  # tokens between the end of the last message and the answer
OPENING = 3  # tokens before the last of a prompt without messages; a decode of few is dear by the token
_SAVE_SPEED = 2e9  # bytes per second, less than any memory copies
_SAVE_SHARE = 0.02  # of the time of a prompt that its checkpoints may take


Scales = tuple[float, ...]
"""The scale of each adapter of a context, in order. Tokens that were computed with other scales are other cells."""


class Checkpoint(Struct, eq=False):
    """The state after the last of these tokens."""

    tokens: list[int]
    state: bytes | memoryview
    scales: Scales
    """Of the adapters that it was computed with."""
    used: int
    """When it was last used, as `Checkpoints` counts uses."""

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def size(self) -> int:
        return len(self.state)


class Checkpoints:
    """The checkpoints of one context, at most `most_bytes` of them.

    A checkpoint that a running request holds is never dropped. Of the others, the one goes first whose loss costs the
    fewest tokens for its bytes and its age: the tokens since the next shorter checkpoint of the same prompt. So an old
    conversation is thinned out before it is lost, and a new one has a checkpoint for each turn.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self.restored = 0
        """Number of prompts that began at a checkpoint."""
        self._kept: list[Checkpoint] = []  # oldest first
        self._held: dict[int, Checkpoint] = {}  # by the sequence of a running request
        self._clock = 0

    @property
    def kept(self) -> tuple[Checkpoint, ...]:
        """The checkpoints, oldest first."""
        return tuple(self._kept)

    @property
    def largest(self) -> int:
        """The bytes of the largest one."""
        return max((c.size for c in self._kept), default=0)

    def stats(self, context: str) -> CheckpointStats:
        """Return the numbers of these checkpoints, as those of a context with this name."""
        return CheckpointStats(
            context=context,
            count=len(self._kept),
            bytes=self.bytes,
            most_bytes=self.most_bytes,
            restored=self.restored,
        )

    def find(self, tokens: Sequence[int], limit: int, scales: Scales = ()) -> Checkpoint | None:
        """Return the longest checkpoint of at most `limit` tokens that these tokens begin with.

        scales: of the adapters, as for all methods.
        """
        fitting = (c for c in self._kept if c.length <= limit and c.scales == scales)
        for checkpoint in sorted(fitting, key=lambda c: c.length, reverse=True):
            if checkpoint.tokens == tokens[: checkpoint.length]:
                return checkpoint
        return None

    def hold(self, sequence: int, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint for a running request, in place of the one that it held, and count a use."""
        self._clock += 1
        checkpoint.used = self._clock
        self._held[sequence] = checkpoint

    def release(self, sequence: int) -> None:
        self._held.pop(sequence, None)

    def wants(self, sequence: int, tokens: Sequence[int], size: int, scales: Scales = ()) -> bool:
        """Return True if a checkpoint of this sequence would be kept, and saves enough. size: its bytes."""
        nearest = self.find(tokens, len(tokens), scales)
        near = nearest.length if nearest else 0
        held = sum({id(c): c.size for holder, c in self._held.items() if holder != sequence}.values())
        return len(tokens) - near >= WORTH_KEEPING and 0 < size <= self.most_bytes - held

    def add(self, sequence: int, tokens: list[int], state: bytes | memoryview, scales: Scales = ()) -> None:
        """Keep a state for which `wants` is true, drop others to make room, and hold it for a running request."""
        self.release(sequence)
        while self.bytes + len(state) > self.most_bytes and (victim := self._least_useful()):
            self._drop(victim)
        if self.bytes + len(state) <= self.most_bytes:
            checkpoint = Checkpoint(tokens, state, scales, 0)
            self._kept.append(checkpoint)
            self.bytes += checkpoint.size
            self.hold(sequence, checkpoint)

    def forget(self, useless: Callable[[Checkpoint], bool]) -> None:
        """Drop the useless checkpoints that no running request holds."""
        for checkpoint in [c for c in self._free() if useless(c)]:
            self._drop(checkpoint)

    def clear(self) -> None:
        """Drop all of them."""
        self._held.clear()
        self.forget(lambda _checkpoint: True)

    def _free(self) -> Iterable[Checkpoint]:
        held = {id(c) for c in self._held.values()}
        return [c for c in self._kept if id(c) not in held]

    def _least_useful(self) -> Checkpoint | None:
        return min(self._free(), key=self._use, default=None)

    def _use(self, checkpoint: Checkpoint) -> float:
        shorter = (c for c in self._kept if c.length < checkpoint.length and c.scales == checkpoint.scales)
        near = max((c.length for c in shorter if c.tokens == checkpoint.tokens[: c.length]), default=0)
        return (checkpoint.length - near) / ((1 + self._clock - checkpoint.used) * checkpoint.size)

    def _drop(self, checkpoint: Checkpoint) -> None:
        self._kept.remove(checkpoint)
        self.bytes -= checkpoint.size


def spacing(size: int, most: int, longest: int, token_seconds: float | None) -> int:
    """Return the tokens between two checkpoints of a long prompt.

    A prompt of the `longest` length fills at most half of the `most` bytes, and saving takes a small share of the time
    that computing takes.

    size: bytes of one checkpoint. token_seconds: to compute one token of a prompt, None while it is not known.
    """
    share = max(1, most // (2 * size)) if size else longest
    by_bytes = -(-longest // share)
    by_time = size / _SAVE_SPEED / (_SAVE_SHARE * token_seconds) if token_seconds else 0
    return max(LEAST_STEP, by_bytes, round(by_time))


def stops(prompt: Sequence[int], cached: int, ends: Collection[int], declared: Iterable[int] = ()) -> list[int]:
    """Return the lengths, increasing, at which the computation of a prompt stops for a checkpoint.

    They are the end of each declared prefix and the beginning of the answer. That is the end of the last message: what
    follows is what the template writes before an answer, and the next turn may have it in another form. A prompt that
    is new for the most part also stops before the last message, which a client may edit.

    cached: tokens in memory. ends: the tokens that end a message. declared: lengths of declared prefixes.
    """
    last = len(prompt) - 1
    begin = _last_end(prompt, ends, last, max(last - LONGEST_OPENING, 0))
    before = _last_end(prompt, ends, begin - 1, cached + WORTH_KEEPING)
    found = {*declared, begin or last - OPENING, before}
    return sorted(n for n in found if cached < n <= last and n >= WORTH_KEEPING)


def _last_end(prompt: Sequence[int], ends: Collection[int], highest: int, above: int) -> int:
    """Return the highest of these lengths at which a message ends, 0 for none."""
    return next((n for n in range(highest, above, -1) if prompt[n - 1] in ends), 0)

"""The states of conversations that outlive their context: written to disk when it closes, read by the next one.

A state from disk is used for requests with the key, the adapter scales, the weights and the shape of context that it
was computed with. It is never encrypted; only the user of the server may read its file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.cache.checkpoints import Scales
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles, header_of
from mullama.engines.llamacpp.cache.prefix_tree import Operation, common_length
from mullama.engines.llamacpp.cache.slots import Cells
from mullama.struct import Struct

WORTH_KEEPING = 64  # tokens; fewer are computed as fast as they are read
_MOST = 64  # conversations that are remembered for the close of the context
_NO_TOKEN = -1  # follows a conversation where `place` wants a prompt, whose last token is never shared

Apply = Callable[[Iterable[Operation]], None]


class _Conversation(Struct, frozen=True, kw_only=True):
    key: str
    """Of the files of its owner, scales and shape."""
    tokens: list[int]
    scales: Scales
    stored: bool
    """A file has exactly these tokens."""


class KeptStates:
    """The states of one context.

    folder: of all contexts; `shape` identifies weights, shape and library; most_bytes: of all files in the folder.
    """

    def __init__(self, folder: str, shape: str, most_bytes: int) -> None:
        self._folder, self._shape, self._most_bytes = folder, shape, most_bytes
        self._ended: list[_Conversation] = []  # latest last
        self._on_disk = self._listed()

    def note(self, tokens: list[int], owner: str, scales: Scales, *, stored: bool = False) -> None:
        """Remember a conversation that ended, in place of its earlier turns. owner: the key that made it."""
        if len(tokens) < WORTH_KEEPING:
            return
        key = self._key(owner, scales)
        turns = [c for c in self._ended if c.key == key and tokens[: len(c.tokens)] == c.tokens]
        for earlier in turns:
            self._ended.remove(earlier)
            if earlier.stored and len(earlier.tokens) < len(tokens):
                self._files(key).discard(earlier.tokens)
        stored = stored or any(earlier.stored and len(earlier.tokens) == len(tokens) for earlier in turns)
        self._ended.append(_Conversation(key=key, tokens=tokens, scales=scales, stored=stored))
        del self._ended[:-_MOST]

    def save(self, native: NativeContext, cache: Cells, apply: Apply) -> None:
        """Write the states of the remembered conversations that are still in memory, the latest last."""
        for conversation in self._ended:
            if conversation.stored:
                continue
            tokens = conversation.tokens
            source, length = cache.match(tokens, conversation.scales)
            # Memory that cannot be cut has few numbers: a place for one conversation may take that of another.
            if not cache.cuttable and source >= 0 and length == len(tokens) == cache.length(source):
                self._files(conversation.key).save(tokens, native.save(source))
                continue
            placement = cache.place([*tokens, _NO_TOKEN], scales=conversation.scales)
            if placement is None:
                continue
            apply(placement.operations)
            if placement.cached == len(tokens):
                self._files(conversation.key).save(tokens, native.save(placement.sequence))
            apply(cache.release(placement.sequence, keep=False))

    def restore(
        self, prompt: list[int], owner: str, scales: Scales, native: NativeContext, cache: Cells, apply: Apply
    ) -> None:
        """Read the state with the longest beginning of a prompt into memory, if memory does not hold as much."""
        known = self._on_disk.get(self._key(owner, scales))
        if not known:
            return
        best, length = [], cache.match(prompt[:-1], scales)[1] + WORTH_KEEPING - 1
        for tokens in known:
            common = common_length(tokens, prompt[:-1])
            if common > length and (cache.cuttable or common == len(tokens)):
                best, length = tokens, common
        placement = cache.place(best, share=False, scales=scales) if best else None
        if placement is None:
            return
        known.remove(best)
        sequence = placement.sequence
        apply(placement.operations)
        apply(cache.make_room(len(best)))
        taken = cache.used + len(best) <= cache.cells and self._read(best, owner, scales, native, sequence)
        if taken:
            cache.extend(sequence, best)
            self.note(best, owner, scales, stored=True)
        apply(cache.release(sequence, keep=taken))

    def _read(self, tokens: list[int], owner: str, scales: Scales, native: NativeContext, sequence: int) -> bool:
        """Read a state into an empty sequence; remove a file that llama.cpp does not accept."""
        files = self._files(self._key(owner, scales))
        state = files.load(tokens)
        if state is None:
            return False
        if native.restore(sequence, state) and native.last_position(sequence) == len(tokens) - 1:
            return True
        files.discard(tokens)
        return False

    def _listed(self) -> dict[str, list[list[int]]]:
        """Return the tokens of the states on disk by key."""
        found: dict[str, list[list[int]]] = {}
        with suppress(OSError):
            for path in Path(self._folder).glob("*.prefix"):
                if (header := header_of(path)) is not None:
                    found.setdefault(header[0], []).append(header[1])
        return found

    def _files(self, key: str) -> PrefixFiles:
        return PrefixFiles(self._folder, key, most_bytes=self._most_bytes, durable=False)

    def _key(self, owner: str, scales: Scales) -> str:
        return hashlib.sha256(json.dumps([self._shape, owner, scales]).encode()).hexdigest()

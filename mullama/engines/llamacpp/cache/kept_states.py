"""The states of conversations that outlive their context: written to files when it closes, read by the next one.

The files are on disk, or in a file system in memory, or in both: a worker ends with its model, so that a state in the
worker's own memory would be lost with it. A state is used for requests with the key, the adapter scales, the weights
and the shape of context that it was computed with. It is never encrypted; only the user of the server may read its
file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
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


class StateFolder:
    """A folder of states, of all contexts. most_bytes: of all its files together. valid: see `PrefixFiles`."""

    def __init__(self, folder: str, most_bytes: int, valid: Callable[[], bool] = lambda: True) -> None:
        self._folder, self._most_bytes, self._valid = Path(folder), most_bytes, valid
        self._read: set[str] = set()  # names of the files whose headers were read
        self._tokens: dict[str, list[list[int]]] = {}
        self._changed = 0  # when the folder changed last, as it was read

    def files(self, key: str) -> PrefixFiles:
        return PrefixFiles(str(self._folder), key, most_bytes=self._most_bytes, durable=False, valid=self._valid)

    def tokens(self, key: str) -> list[list[int]]:
        """Return the tokens of the states with a key. The list may be changed: a state that is removed is not offered
        again. Other contexts write to the folder as well, so that it is read again when it has changed.
        """
        with suppress(OSError):
            changed = self._folder.stat().st_mtime_ns
            if changed != self._changed:
                self._changed = changed
                for path in self._folder.glob("*.prefix"):
                    if path.name not in self._read and (header := header_of(path)) is not None:
                        self._read.add(path.name)
                        self._tokens.setdefault(header[0], []).append(header[1])
        return self._tokens.get(key, [])


class KeptStates:
    """The states of one context. folders: the fastest first; shape: identifies weights, shape and library."""

    def __init__(self, folders: Sequence[StateFolder], shape: str) -> None:
        self._folders, self._shape = folders, shape
        self._ended: list[_Conversation] = []  # latest last

    def note(self, tokens: list[int], owner: str, scales: Scales, *, stored: bool = False) -> None:
        """Remember a conversation that ended, in place of its earlier turns. owner: the key that made it."""
        if len(tokens) < WORTH_KEEPING:
            return
        key = self._key(owner, scales)
        turns = [c for c in self._ended if c.key == key and tokens[: len(c.tokens)] == c.tokens]
        for earlier in turns:
            self._ended.remove(earlier)
            if earlier.stored and len(earlier.tokens) < len(tokens):
                self._discard(key, earlier.tokens)
        stored = stored or any(earlier.stored and len(earlier.tokens) == len(tokens) for earlier in turns)
        self._ended.append(_Conversation(key=key, tokens=tokens, scales=scales, stored=stored))
        del self._ended[:-_MOST]

    def save(self, native: NativeContext, cache: Cells, apply: Apply) -> None:
        """Write the states of the remembered conversations that are still in memory, the latest last.

        Those with all tokens of a sequence are first: a place for the beginning of one may take its memory. In a pool
        that can be cut, llama.cpp has no states of the numbers of ended requests, and a place shares their cells.
        """
        parts, direct = [], not (cache.cuttable and cache.pins)
        for conversation in self._ended:
            tokens = conversation.tokens
            source, length = cache.match(tokens, conversation.scales)
            if conversation.stored or length < len(tokens):
                continue
            if direct and source >= 0 and length == cache.length(source):
                self._save(conversation, native.save(source))
            else:
                parts.append(conversation)
        for conversation in parts:
            tokens = conversation.tokens
            placement = cache.place([*tokens, _NO_TOKEN], scales=conversation.scales)
            if placement is None:
                continue
            apply(placement.operations)
            if placement.cached == len(tokens):
                self._save(conversation, native.save(placement.sequence))
            apply(cache.release(placement.sequence, keep=False))

    def restore(
        self, prompt: list[int], owner: str, scales: Scales, native: NativeContext, cache: Cells, apply: Apply
    ) -> None:
        """Read the state with the longest beginning of a prompt into memory, if memory does not hold as much."""
        key = self._key(owner, scales)
        best, length = [], cache.match(prompt[:-1], scales)[1] + WORTH_KEEPING - 1
        for folder in self._folders:
            for tokens in folder.tokens(key):
                common = common_length(tokens, prompt[:-1])
                if common > length and (cache.cuttable or common == len(tokens)):
                    best, length = tokens, common
        placement = cache.place(best, share=False, scales=scales) if best else None
        if placement is None:
            return
        sequence = placement.sequence
        apply(placement.operations)
        apply(cache.make_room(len(best)))
        taken = cache.used + len(best) <= cache.cells and self._read(best, key, native, sequence)
        for folder in self._folders:  # it is in memory, or of no use
            if best in (known := folder.tokens(key)):
                known.remove(best)
        if taken:
            cache.extend(sequence, best)
            self.note(best, owner, scales, stored=True)
        apply(cache.release(sequence, keep=taken))

    def _read(self, tokens: list[int], key: str, native: NativeContext, sequence: int) -> bool:
        """Read a state into an empty sequence; remove a file that llama.cpp does not accept."""
        for folder in self._folders:
            state = folder.files(key).load(tokens)
            if state is None:
                continue
            if native.restore(sequence, state) and native.last_position(sequence) == len(tokens) - 1:
                return True
            self._discard(key, tokens)
            return False
        return False

    def _save(self, conversation: _Conversation, state: memoryview) -> None:
        for folder in self._folders:
            folder.files(conversation.key).save(conversation.tokens, state)

    def _discard(self, key: str, tokens: list[int]) -> None:
        for folder in self._folders:
            folder.files(key).discard(tokens)

    def _key(self, owner: str, scales: Scales) -> str:
        return hashlib.sha256(json.dumps([self._shape, owner, scales]).encode()).hexdigest()

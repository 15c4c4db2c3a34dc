"""Guesses of a smaller model with the same vocabulary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.binding.context import DECODED, Floats, NativeBatch, NativeContext
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.paged_memory import can_page
from mullama.engines.llamacpp.cache.prefix_tree import common_length
from mullama.engines.llamacpp.speculation.drafter import NO_GUESSES, Ask, DecodedPart, Guesses
from mullama.errors import Refused
from mullama.struct import Struct, field, replace
from mullama.weights.memory import ROWS

_PADDING = 256  # cells, as in llama_context
_CAUGHT_UP = 8  # tokens; a longer text is read before the first guess, which says nothing about the next ones
_EVIDENCE = 6  # a class of its own, see `policy`


class _Text(Struct, eq=False):
    """The text of one request in the memory of the draft model."""

    sequence: int
    tokens: list[int] = field(default_factory=list)


class _Draft(Struct, eq=False):
    """One draft that is being made."""

    ask: Ask
    text: _Text
    guesses: list[int] = field(default_factory=list)


class ModelDrafter:
    """Implements `Drafter` with the likeliest token of a draft model, then the likeliest after it, and so on.

    The draft model reads the text of each request itself, at most one batch in each step.
    """

    free = False
    evidence = _EVIDENCE

    def __init__(
        self,
        model: NativeModel,
        main: NativeContext,
        options: ContextOptions,
        *,
        most: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """main: the context of the model that verifies, with these options.

        most: the most tokens of all texts in memory, where others need none; 0 for all that fit.
        """
        slots, size = options.parallel, options.size or main.model.train_context
        self._main = main
        settings = replace(options, kv_k="f16", kv_v="f16", rope_scaling="", rope_freq_base=0.0, rope_freq_scale=0.0)

        cells = -(-size // _PADDING) * _PADDING * slots

        def native_context(paged: int) -> NativeContext:
            return NativeContext(
                model,
                settings,
                cells=cells,
                sequences=slots,
                outputs=max(ROWS, slots),
                threads=main.threads,
                pool=False,
                paged=paged,
            )

        plain = (
            most < cells
            and not model.recurrent
            and not model.window
            and not model.gpu_layers
            and options.flash != "off"
        )
        self._most = most if plain and can_page() else 0
        try:
            self._native = native_context(self._most)
        except Refused:
            if not self._most:
                raise
            self._most = 0  # takes less address space, which may be limited
            self._native = native_context(0)
        self._batch = NativeBatch(self._native.batch_size)
        self._clock = clock
        self._idle = [_Text(sequence) for sequence in range(slots)]
        self._texts: dict[int, _Text] = {}
        self._ends = frozenset(t for t in range(model.vocabulary) if model.ends_generation(t))
        self.each = 0.0

    def decoded(self, parts: Sequence[DecodedPart], skip: int) -> None:
        pass

    def propose(self, asks: Sequence[Ask]) -> list[Guesses]:
        drafts = [_Draft(ask, self._text(ask)) for ask in asks]
        self._native.set_threads(self._main.threads)
        started, behind = self._clock(), 0
        live = []
        self._batch.clear()
        for draft in drafts:
            missing = self._missing(draft)
            if self._most and not self._has_room(draft, len(missing)):
                continue
            behind = max(behind, len(missing))
            room = self._batch.room - self._batch.count - (len(drafts) - 1)
            part = missing[: max(1, room)]
            self._add(draft.text, part, outputs=int(len(part) == len(missing)))
            if len(part) == len(missing):
                live.append(draft)
        while live and (rows := self._decode(len(live))) is not None:
            live = [draft for draft, row in zip(live, rows, strict=True) if self._guess(draft, row)]
            self._batch.clear()
            for draft in live:
                self._add(draft.text, draft.guesses[-1:], outputs=1)
        if not live and self._batch.count:
            self._decode(0)
        count = sum(len(draft.guesses) for draft in drafts)
        if count and behind <= _CAUGHT_UP:
            each = (self._clock() - started) / count
            self.each = each if not self.each else self.each + (each - self.each) * (0.5 if each < self.each else 0.2)
        return [Guesses(tokens=tuple(d.guesses), evidence=_EVIDENCE) if d.guesses else NO_GUESSES for d in drafts]

    def _has_room(self, draft: _Draft, missing: int) -> bool:
        """Return True if the text may grow by these tokens and its guesses. Ended texts go first, the oldest first."""
        free = self._most - missing - draft.ask.most - sum(len(t.tokens) for t in (*self._idle, *self._texts.values()))
        for text in self._idle:
            if free >= 0:
                break
            free += len(text.tokens)
            self._native.trim(text.sequence, 0)
            text.tokens.clear()
        return free >= 0

    def _text(self, ask: Ask) -> _Text:
        text = self._texts.get(ask.key)
        if text is None:
            text = max(self._idle, key=lambda idle: common_length(idle.tokens, ask.tokens))
            self._idle.remove(text)
            self._texts[ask.key] = text
        return text

    def _missing(self, draft: _Draft) -> list[int]:
        """Cut the text where the answer went another way, and return the tokens that are not in memory."""
        text, tokens = draft.text, draft.ask.tokens
        held = min(common_length(text.tokens, tokens), len(tokens) - 1)
        if held < len(text.tokens):
            if not self._native.cut(text.sequence, held):  # a recurrent model
                held = 0
                self._native.cut(text.sequence, 0)
            del text.tokens[held:]
        return list(tokens[held:])

    def _add(self, text: _Text, tokens: Sequence[int], *, outputs: int) -> None:
        self._batch.add(text.sequence, len(text.tokens), tokens, outputs)
        text.tokens.extend(tokens)

    def _decode(self, rows: int) -> Floats | None:
        """Decode the batch; return the logits, None if it failed: then every text is read again."""
        if self._native.decode(self._batch) == DECODED:
            return self._native.logits(rows) if rows else None
        for text in (*self._idle, *self._texts.values()):
            self._native.cut(text.sequence, 0)
            text.tokens.clear()
        return None

    def _guess(self, draft: _Draft, row: Floats) -> bool:
        """Add the likeliest token to a draft; return True if the next one is to be guessed, too."""
        token, least = int(row.argmax()), draft.ask.min_probability
        if least > 0 and 1.0 / float(np.exp(row - row[token]).sum()) < least:
            return False
        draft.guesses.append(token)
        return len(draft.guesses) < draft.ask.most and token not in self._ends

    def end(self, key: int) -> None:
        if (text := self._texts.pop(key, None)) is not None:
            self._idle.append(text)

    def close(self) -> None:
        self._native.close()

"""Guesses of the model's own layer for them (multi-token prediction, nextn).

The layer reads each token with the model's state before it, and guesses the token after it. The first guess uses the
state of the model, the next ones the layer's own. Tokens that a request shares with earlier ones are not in its memory,
because their states are gone: it guesses from the tokens after them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.binding.context import Floats, NativeContext
from mullama.engines.llamacpp.binding.nextn import NextnContext
from mullama.engines.llamacpp.speculation.drafter import NO_GUESSES, NOBODY, Ask, DecodedPart, Guesses
from mullama.struct import Struct, field

_PADDING = 256  # cells, as in llama_context
_CAUGHT_UP = 8  # tokens; reading more says nothing about the time of a guess
_EVIDENCE = 6  # a class of its own, see `policy`
_MOST_STATES = 64  # states of answered tokens that wait to be read


class _Text(Struct, eq=False):
    """The text of one request. `states[i]` is the model's state at the position `first + i`."""

    sequence: int
    held: int = 0  # the position after the last token that the layer has read
    first: int = 0
    states: list[Floats] = field(default_factory=list)


class MtpDrafter:
    """Implements `Drafter` with the nextn layer of the model."""

    free = False
    evidence = _EVIDENCE

    def __init__(
        self, main: NativeContext, options: ContextOptions, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """main: the context of the model, with these options."""
        slots, size = options.parallel, options.size or main.model.train_context
        cells = -(-size // _PADDING) * _PADDING * slots
        self._native = NextnContext(main, options, cells=cells, sequences=slots)
        self._main = main
        self._clock = clock
        self._idle = list(range(slots))
        self._texts: dict[int, _Text] = {}
        self._ends = frozenset(t for t in range(main.model.vocabulary) if main.model.ends_generation(t))
        self.each = 0.0

    def decoded(self, parts: Sequence[DecodedPart], skip: int) -> None:
        rows = self._native.states_of_main(skip + sum(len(part.tokens) for part in parts))
        row = skip
        for part in parts:
            states = rows[row : row + len(part.tokens)]
            row += len(part.tokens)
            if part.key != NOBODY:
                self._keep(part, states)

    def _keep(self, part: DecodedPart, states: Floats) -> None:
        text = self._texts.get(part.key)
        if text is None:
            text = self._texts[part.key] = _Text(self._idle.pop(), held=part.start + 1, first=part.start)
        elif not text.first <= part.start <= text.first + len(text.states):  # begun again
            self._forget(text, part.start)
        if part.answering:
            del text.states[part.start - text.first :]
            text.states += list(states.copy())
            if len(text.states) > _MOST_STATES:
                self._forget(text, part.start + len(part.tokens) - 1)
                text.states = [states[-1].copy()]
            return
        # A prompt is read at once: its states would need more memory than the layer's cache.
        before = text.states[-1:] if part.start > text.first else []
        tokens = part.tokens if before else part.tokens[1:]
        known = np.concatenate((np.array(before, np.float32).reshape(-1, states.shape[1]), states[:-1]))
        text.first, text.states = part.start + len(part.tokens) - 1, [states[-1].copy()]
        if len(tokens):
            self._native.begin()
            self._native.add(text.sequence, text.held, tokens, known, output=False)
            text.held += len(tokens)
            if not self._native.process():
                self._forget(text, text.first)

    def _forget(self, text: _Text, first: int) -> None:
        """Begin the text again at a position, whose state is the first one."""
        self._native.cut(text.sequence, 0)
        text.held, text.first, text.states = first + 1, first, []

    def propose(self, asks: Sequence[Ask]) -> list[Guesses]:
        self._native.set_threads(self._main.threads)
        started = self._clock()
        guesses: dict[int, list[int]] = {ask.key: [] for ask in asks}
        live: list[tuple[Ask, _Text, int]] = []
        known = [(ask, text) for ask in asks if (text := self._text_of(ask)) is not None]
        missing = [len(ask.tokens) - text.held for ask, text in known]
        behind = max(missing, default=0)
        if sum(missing) > self._native.batch_size:  # after a time without guesses
            known = [(ask, text) for ask, text in known if self._catch_up(ask, text)]
        self._native.begin()
        for ask, text in known:
            last = len(ask.tokens) - 1
            states = text.states[text.held - 1 - text.first : last - text.first]
            self._native.cut(text.sequence, text.held)
            self._native.add(text.sequence, text.held, ask.tokens[text.held :], np.array(states), output=True)
            live.append((ask, text, self._native.added - 1))
            text.held = last + 1
        while live and self._native.process():
            live = self._next(live, guesses)
        for ask, text, _ in live:  # the decode failed
            self._forget(text, len(ask.tokens) - 1)
        count = sum(map(len, guesses.values()))
        if count and behind <= _CAUGHT_UP:
            each = (self._clock() - started) / count
            self.each = each if not self.each else self.each + (each - self.each) * (0.5 if each < self.each else 0.2)
        made = (guesses[ask.key] for ask in asks)
        return [Guesses(tokens=tuple(tokens), evidence=_EVIDENCE) if tokens else NO_GUESSES for tokens in made]

    def _text_of(self, ask: Ask) -> _Text | None:
        """Return the text of a request, None where the states of its last tokens are not known."""
        text, last = self._texts.get(ask.key), len(ask.tokens) - 1
        known = text is not None and text.first < text.held <= last and last - 1 < text.first + len(text.states)
        return text if known else None

    def _catch_up(self, ask: Ask, text: _Text) -> bool:
        """Read the tokens of a request before its last one; return False if the decode failed."""
        last = len(ask.tokens) - 1
        while text.held < last:
            end = min(last, text.held + self._native.batch_size)
            states = text.states[text.held - 1 - text.first : end - 1 - text.first]
            self._native.begin()
            self._native.cut(text.sequence, text.held)
            self._native.add(text.sequence, text.held, ask.tokens[text.held : end], np.array(states), output=False)
            text.held = end
            if not self._native.process():
                self._forget(text, last)
                return False
        return True

    def _next(self, live: list[tuple[Ask, _Text, int]], guesses: dict[int, list[int]]) -> list[tuple[Ask, _Text, int]]:
        """Take a guess for each request from the last decode, and begin the batch of the next ones."""
        rows = self._native.logits(len(live))
        going = []
        for (ask, text, index), row in zip(live, rows, strict=True):
            token, mine = int(row.argmax()), guesses[ask.key]
            if ask.min_probability > 0 and 1.0 / float(np.exp(row - row[token]).sum()) < ask.min_probability:
                continue
            mine.append(token)
            if len(mine) < ask.most and token not in self._ends:
                going.append((ask, text, token, self._native.state(index)))
        self._native.begin()
        made = []
        for ask, text, token, state in going:
            position = len(ask.tokens) + len(guesses[ask.key]) - 1
            self._native.add(text.sequence, position, [token], state[None], output=True)
            made.append((ask, text, self._native.added - 1))
        return made

    def end(self, key: int) -> None:
        if (text := self._texts.pop(key, None)) is not None:
            self._native.cut(text.sequence, 0)
            self._idle.append(text.sequence)

    def close(self) -> None:
        self._native.close()

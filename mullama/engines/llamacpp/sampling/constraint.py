"""Grammars as masks over tokens. The only importer of llguidance, with limits on its work.

llguidance gets `Constraint.grammar` unchanged: Lark text with a rule `start`, or JSON text that begins with
`{"grammars":`, as `LLMatcher.grammar_from_json_schema` writes it. Lark grammars may use the rules in
`Constraint.markers`, which are added here because only the vocabulary knows the texts that are single tokens.
Grammars are compiled in a thread, so that a large one does not stall running answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from enum import Enum, auto
from functools import cached_property
from json import dumps
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from mullama.chat.stops import StopMatcher
from mullama.chat.types import Constraint
from mullama.engines.llamacpp.vocabulary import Vocabulary
from mullama.errors import Invalid

LONGEST_GRAMMAR = 256 * 1024  # characters
_KEPT = 64  # compiled grammars

_LIMITS = {
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}


class Grammars:
    """Compiles the grammars of one model and caches the most recent ones."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiled: OrderedDict[str, Future[Any]] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None

    def request(self, constraint: Constraint) -> Future[Any]:
        """Start to compile a grammar. The result is for `state`; it raises `Invalid` for a bad grammar."""
        text = self._text(constraint)
        future = self._compiled.get(text)
        if future is None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
            future = self._compiled[text] = self._thread.submit(self._compile, text)
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(text)
        return future

    def state(self, constraint: Constraint, compiled: Any) -> ConstraintState:
        return ConstraintState(constraint, compiled, self._tokenizer, self._vocabulary)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._thread = None

    def _text(self, constraint: Constraint) -> str:
        if len(constraint.grammar) > LONGEST_GRAMMAR:
            raise Invalid(
                f"the grammar has {len(constraint.grammar)} characters",
                hint=f"at most {LONGEST_GRAMMAR}",
                field="format",
            )
        rules = (f"{name}: {self._marker(text)}" for name, text in constraint.markers)
        return "\n".join((constraint.grammar, *rules))

    def _marker(self, text: str) -> str:
        tokens = self._vocabulary.encode(text, add_special=False, parse_special=True)
        if len(tokens) == 1 and self._vocabulary.is_special(tokens[0]):
            return f"<[{tokens[0]}]>"
        return dumps(text)

    def _compile(self, text: str) -> Any:
        try:
            limits = LLParserLimits(**_LIMITS)
            matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=limits)
        except BaseException as error:  # a panic of the Rust library is no `Exception`
            raise Invalid(f"the grammar cannot be compiled: {error}"[:300], field="format") from error
        if matcher.is_error():
            raise Invalid(
                f"the grammar is not valid: {matcher.get_error()[:300]}",
                hint="see llguidance's Lark syntax",
                field="format",
            )
        return matcher

    @cached_property
    def _tokenizer(self) -> Any:
        vocabulary = self._vocabulary
        model = vocabulary.model
        return LLTokenizer.from_llamacpp(
            tokens=[_bytes(vocabulary, token) for token in range(vocabulary.size)],
            vocab_ptr=model.vocab,
            tokenize_fptr=model.tokenize_address(),
            eos_token=list(vocabulary.ends) or vocabulary.eos,
        )


def _bytes(vocabulary: Vocabulary, token: int) -> bytes:
    """Return a token in llguidance's form: special tokens begin with a byte that no text has."""
    piece = vocabulary.piece(token)
    return b"\xff" + piece if vocabulary.is_special(token) else piece


class _Phase(Enum):
    BEFORE = auto()  # the answer has not reached `Constraint.after` yet
    FREE = auto()  # waiting for a trigger
    BOUND = auto()
    DONE = auto()


class ConstraintState:
    """Tracks the position of one answer in its constraint."""

    def __init__(self, constraint: Constraint, compiled: Any, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self._constraint = constraint
        self._compiled = compiled
        self._tokenizer = tokenizer
        self._matcher: Any = None
        self._no_ends = _all_but(vocabulary.ends, vocabulary.size)
        self._ends = frozenset(vocabulary.ends)
        self._watch = StopMatcher(())
        self._phase = _Phase.DONE
        self._enter(_Phase.FREE if constraint.after is None else _Phase.BEFORE)

    @property
    def done(self) -> bool:
        """True when the answer is complete."""
        return self._phase is _Phase.DONE

    def mask(self) -> bytes | None:
        """Return the allowed next tokens, one bit each, lowest first; None for all."""
        if self._phase is _Phase.BOUND:
            mask: bytes = self._matcher.compute_bitmask()
            self._check()
            return mask
        return self._no_ends if self._phase is _Phase.BEFORE else None

    def accept(self, token: int, piece: bytes) -> bool:
        """Advance by a chosen token; return False if it ends a trigger and continues against the grammar."""
        if self._phase is _Phase.BOUND:
            self._matcher.consume_token(token)
            self._check()
            self._leave_when_matched()
            return True
        if token in self._ends:
            return True
        return self._watched(piece.decode("latin-1"))

    def forced(self) -> Sequence[int]:
        """Return the tokens that the grammar determines, and advance by them."""
        if self._phase is not _Phase.BOUND:
            return ()
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens:
            self._matcher.consume_tokens(tokens)
            self._check()
            self._leave_when_matched()
        return tokens

    def _enter(self, phase: _Phase) -> None:
        constraint = self._constraint
        if phase is _Phase.FREE and not constraint.triggers:
            phase = _Phase.BOUND
        if phase is _Phase.BOUND:
            self._matcher = self._compiled.deep_copy()
        elif phase is _Phase.FREE:
            self._watch = StopMatcher([_octets(t) for t in constraint.triggers])
        elif phase is _Phase.BEFORE:
            self._watch = StopMatcher([_octets(constraint.after or "")])
        self._phase = phase

    def _watched(self, text: str) -> bool:
        """Search for the text that ends this phase. The rest of the same token belongs to the next phase."""
        watch, phase = copy(self._watch), self._phase
        while text:
            _, hit = self._watch.feed(text)
            if hit is None:
                return True
            text = self._watch.rest
            self._enter(_Phase.FREE if self._phase is _Phase.BEFORE else _Phase.BOUND)
            if self._phase is _Phase.BOUND and not self._fits(text):
                self._watch, self._phase, self._matcher = watch, phase, None
                return False
            if self._phase is _Phase.BOUND:
                return True
        return True

    def _fits(self, text: str) -> bool:
        if not text:
            return True
        tokens = self._tokenizer.tokenize_bytes(text.encode("latin-1"))
        if self._matcher.try_consume_tokens(tokens) < len(tokens):
            return False
        self._check()
        self._leave_when_matched()
        return True

    def _leave_when_matched(self) -> None:
        if self._matcher.is_stopped():
            again = self._constraint.triggers and self._constraint.repeat
            self._enter(_Phase.FREE if again else _Phase.DONE)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = str(self._matcher.get_error()).splitlines()[0][:300]
            raise Invalid(
                f"the grammar allows no token here, or takes too much work: {reason}",
                hint="make it smaller or less ambiguous",
                field="format",
            )


def _octets(text: str) -> str:
    """Return UTF-8 as one character per byte, because tokens may end inside a character."""
    return text.encode().decode("latin-1")


def _all_but(tokens: Sequence[int], size: int) -> bytes:
    mask = bytearray(b"\xff" * ((size + 31) // 32 * 4))
    for token in tokens:
        mask[token >> 3] &= ~(1 << (token & 7)) & 0xFF
    return bytes(mask)

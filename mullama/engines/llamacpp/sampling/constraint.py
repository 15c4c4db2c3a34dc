"""Grammars as masks over tokens. The only importer of llguidance, with limits on its work.

llguidance gets `Constraint.grammar` unchanged: Lark text with a rule `start`, or JSON text that begins with
`{"grammars":`, as `LLMatcher.grammar_from_json_schema` writes it. Lark grammars may use the rules in
`Constraint.markers`, which are added here because only the vocabulary knows the texts that are single tokens.
Grammars are compiled in a thread, so that a large one does not stall running answers.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from enum import Enum, auto
from functools import cached_property, partial
from json import dumps
from typing import Any

from mullama.chat.stops import StopMatcher
from mullama.chat.types import Constraint
from mullama.engines.llamacpp.sampling.culprit import explained
from mullama.engines.llamacpp.sampling.numbers import NumberGuard, without_digits
from mullama.engines.llamacpp.vocabulary import Vocabulary
from mullama.errors import Invalid

LONGEST_GRAMMAR = 256 * 1024  # characters
LONGEST_COMPILATION = 1.0  # seconds of CPU time
LONGEST_STEP = 0.5  # seconds of CPU time that a grammar may take for one token
_KEPT = 64  # compiled grammars
_STACK = 64 * 1024 * 1024  # bytes; llguidance needs about 1 KiB for each level, and a grammar may have 20,000
_THREADS = 2  # so that a grammar does not wait for one that takes long

_LIMITS = {
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 100_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}


def seconds_of_thread() -> Callable[[], float]:
    """Return a clock of the CPU time of this thread that others can read; macOS and Windows have none but time."""
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    return partial(time.clock_gettime, clock_of(threading.get_ident())) if clock_of else time.monotonic


class Compilation:
    """A grammar that a thread compiles, has compiled, or could not compile.

    clock: returns the clock of the thread that calls it.
    """

    def __init__(self, clock: Callable[[], Callable[[], float]] = seconds_of_thread) -> None:
        self._clock = clock
        self.future: Future[Any] = Future()
        self._late = False
        self._seconds = time.monotonic
        self._begun = math.inf

    def run(self, compile: Callable[[], Any]) -> None:
        """Compile in this thread."""
        try:
            self._seconds = self._clock()
            self._begun = self._seconds()
            self.future.set_result(compile())
        except Exception as error:  # noqa: BLE001 - raised again by `result`
            self.future.set_exception(error)

    def done(self) -> bool:
        """Return True if `result` does not wait: the grammar is compiled, is bad, or takes too long."""
        late = self._begun < math.inf and self._seconds() - self._begun > LONGEST_COMPILATION
        self._late = not self.future.done() and (self._late or late)
        return self._late or self.future.done()

    def result(self) -> Any:
        """Return the compiled grammar. Raises `Invalid` for a bad one, and for one that takes too long."""
        if self._late:
            raise Invalid(
                f"the grammar takes more than {LONGEST_COMPILATION:g} s to compile",
                hint="make it smaller or less ambiguous",
                field="format",
            )
        return self.future.result()


class Grammars:
    """Compiles the grammars of one model and caches the most recent ones."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiled: OrderedDict[str, Compilation] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None
        self._first = threading.Lock()

    def request(self, constraint: Constraint) -> Compilation:
        """Start to compile a grammar. The result is for `state`."""
        text = self._text(constraint)
        made = self._compiled.get(text)
        if made is None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(_THREADS, thread_name_prefix="grammar")
            made = self._compiled[text] = Compilation()
            ordinary = threading.stack_size(_STACK)
            self._thread.submit(self._run, made, text)
            threading.stack_size(ordinary)
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(text)
        return made

    def state(self, constraint: Constraint, compiled: Any) -> ConstraintState:
        return ConstraintState(constraint, compiled, self._tokenizer, self._vocabulary, lambda: self._digits)

    @cached_property
    def _digits(self) -> int:
        """The tokens that begin with a digit, one bit each."""
        pieces = (self._vocabulary.piece(token) for token in range(self._vocabulary.size))
        return sum(1 << token for token, piece in enumerate(pieces) if piece[:1].isdigit())

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

    def _run(self, made: Compilation, text: str) -> None:
        with self._first:
            tokenizer = self._tokenizer  # its time is not the grammar's
        made.run(partial(_compiled, tokenizer, text))

    @cached_property
    def _tokenizer(self) -> Any:
        vocabulary = self._vocabulary
        model = vocabulary.model
        return _library().LLTokenizer.from_llamacpp(
            tokens=[_bytes(vocabulary, token) for token in range(vocabulary.size)],
            vocab_ptr=model.vocab,
            tokenize_fptr=model.tokenize_address(),
            eos_token=list(vocabulary.ends) or vocabulary.eos,
        )


def _library() -> Any:
    """Import llguidance: at the first grammar, which many workers never get."""
    import llguidance

    return llguidance


def _matcher(tokenizer: Any, text: str) -> Any:
    library = _library()
    return library.LLMatcher(tokenizer, text, log_level=0, limits=library.LLParserLimits(**_LIMITS))


def _compiled(tokenizer: Any, text: str) -> Any:
    """Compile a grammar, and do the work for the first token, which is the most."""
    try:
        matcher = _matcher(tokenizer, text)
        if not matcher.is_error() and not matcher.compute_ff_tokens() and not matcher.is_stopped():
            matcher.compute_bitmask()
    except BaseException as error:  # a panic of the Rust library is no `Exception`
        raise Invalid(f"the grammar cannot be compiled: {error}"[:300], field="format") from error
    if matcher.is_error():
        reason = explained(text, matcher.get_error(), partial(_error_of, tokenizer))
        raise Invalid(f"the grammar is not valid: {reason}", field="format")
    return matcher


def _error_of(tokenizer: Any, text: str) -> str:
    """Return the error of a grammar, "" when it compiles."""
    try:
        matcher = _matcher(tokenizer, text)
        return str(matcher.get_error()) if matcher.is_error() else ""
    except BaseException as error:  # noqa: BLE001 - a panic of the Rust library is no `Exception`
        return str(error) or "it cannot be compiled"


def compiler_error(text: str) -> str:
    """Return the error of the compiler for a grammar without a model, "" when it compiles.

    The error of a JSON schema is one line with its JSON pointer; another one begins with its line and column.
    """

    def error_of(text: str) -> str:
        try:
            return str(_library().LLMatcher.validate_grammar(text))
        except BaseException as error:  # noqa: BLE001 - a panic of the Rust library is no `Exception`
            return str(error) or "it cannot be compiled"

    error = error_of(text)
    return explained(text, error, error_of) if error and "%json" in text else error


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

    def __init__(
        self,
        constraint: Constraint,
        compiled: Any,
        tokenizer: Any,
        vocabulary: Vocabulary,
        digits: Callable[[], int] = lambda: 0,
    ) -> None:
        """digits: returns the tokens that begin with a digit, one bit each."""
        self._constraint = constraint
        self._vocabulary, self._digits = vocabulary, digits
        self._numbers: NumberGuard | None = None
        self._compiled = compiled
        self._tokenizer = tokenizer
        self._matcher: Any = None
        self._no_ends = _all_but(vocabulary.ends, vocabulary.size)
        self._ends = frozenset(vocabulary.ends)
        self._watch = StopMatcher(())
        self._token_seconds = time.thread_time()  # CPU time at which the work for the present token began
        self._phase = _Phase.DONE
        self._enter(_Phase.FREE if constraint.after is None else _Phase.BEFORE)

    @property
    def done(self) -> bool:
        """True when the answer is complete."""
        return self._phase is _Phase.DONE

    def mask(self) -> bytes | None:
        """Return the allowed next tokens, one bit each, lowest first; None for all."""
        self._begin_token()
        if self._phase is _Phase.BOUND:
            mask: bytes = self._do(self._matcher.compute_bitmask)
            full = self._numbers is not None and self._numbers.full
            return without_digits(mask, self._digits()) if full else mask
        return self._no_ends if self._phase is _Phase.BEFORE else None

    def allows(self, token: int) -> bool:
        """Return True if the token may be next."""
        mask = self.mask()
        return mask is None or bool(mask[token >> 3] >> (token & 7) & 1)

    def accept(self, token: int, piece: bytes) -> bool:
        """Advance by a chosen token; return False if it ends a trigger and continues against the grammar."""
        if self._phase is _Phase.BOUND:
            self._do(self._matcher.consume_token, token)
            if self._numbers is not None:
                self._numbers.feed(piece)
            self._leave_when_matched()
            return True
        if token in self._ends:
            return True
        return self._watched(piece.decode("latin-1"))

    def forced(self) -> Sequence[int]:
        """Return the tokens that the grammar determines, and advance by them."""
        if self._phase is not _Phase.BOUND:
            return ()
        tokens: list[int] = self._do(self._matcher.compute_ff_tokens)
        if tokens:
            self._do(self._matcher.consume_tokens, tokens)
            if self._numbers is not None:
                self._numbers.feed(self._vocabulary.decode(tokens))
            self._leave_when_matched()
        return tokens

    def _enter(self, phase: _Phase) -> None:
        constraint = self._constraint
        if phase is _Phase.FREE and not constraint.triggers:
            phase = _Phase.BOUND
        if phase is _Phase.BOUND:
            self._matcher = self._compiled.deep_copy()
            mark = "" if constraint.numbers == '"' else constraint.numbers
            self._numbers = NumberGuard(mark) if constraint.numbers else None
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
        if self._do(self._matcher.try_consume_tokens, tokens) < len(tokens):
            return False
        if self._numbers is not None:
            self._numbers.feed(text.encode("latin-1"))
        self._leave_when_matched()
        return True

    def _leave_when_matched(self) -> None:
        if self._matcher.is_stopped():
            again = self._constraint.triggers and self._constraint.repeat
            self._enter(_Phase.FREE if again else _Phase.DONE)

    def _begin_token(self) -> None:
        self._token_seconds = time.thread_time()

    def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the matcher. Raise `Invalid` when it fails or takes so long that other answers would wait.

        The clock of CPU time takes as long as a call, so it is read for a token, and again for a call that is late.
        """
        begun = time.perf_counter()
        try:
            value = call(*arguments)
        except BaseException as error:  # a panic of the Rust library is no `Exception`
            raise _failed(str(error)) from error
        if self._matcher.is_error():
            raise _failed(str(self._matcher.get_error()))
        late = time.perf_counter() - begun > LONGEST_STEP
        if late and time.thread_time() - self._token_seconds > LONGEST_STEP:
            raise _failed(f"one token took more than {LONGEST_STEP:g} s")
        return value


def _failed(reason: str) -> Invalid:
    return Invalid(
        f"the grammar allows no token here, or takes too much work: {(reason.splitlines() or [''])[0][:300]}",
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

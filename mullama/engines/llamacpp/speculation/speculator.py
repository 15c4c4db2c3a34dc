"""Speculative decoding of one context: asks the drafter, by the policy, and evaluates what was accepted.

Every token is chosen from the model's own logits, in order, with the request's own random numbers, and a guess is
accepted if it equals that token. So an answer has exactly the distribution, and with a seed the text, that it has
without guesses (the case of a deterministic draft in Leviathan et al., 2023). Constraints, penalties and logprobs see
the same sequence of tokens as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat.types import DraftLimits
from mullama.engines.base import DraftOptions
from mullama.engines.llamacpp.batcher import Slice
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.decode_cost import DecodeCost
from mullama.engines.llamacpp.speculation.drafter import NOBODY, Ask, DecodedPart, Drafter, Guesses
from mullama.engines.llamacpp.speculation.policy import Chances, best_length, expected
from mullama.engines.llamacpp.speculation.rollback import Rollback
from mullama.struct import Struct, field

_TRY_AGAIN = 256  # drafts that would not pay, before one guess tests whether that still holds


class _Request(Struct, eq=False):
    """A running request that may get guesses."""

    completion: RunningCompletion
    limits: DraftLimits
    chances: Chances = field(default_factory=Chances)
    evidence: int = 0
    guessed: int = 0
    accepted: int = 0  # of all its drafts, before the one that is being verified
    declined: int = 0  # drafts in a row that would not have paid


class Speculator:
    """The guesses of the requests of one context.

    rows: logits of one decode that may belong to guesses, of all requests together.
    """

    def __init__(
        self,
        drafter: Drafter,
        options: DraftOptions,
        rollback: Rollback,
        *,
        cost: DecodeCost,
        rows: int,
    ) -> None:
        self._drafter = drafter
        self._options = options
        self._rollback = rollback
        self._rows = rows
        self._cost = cost
        self._requests: dict[int, _Request] = {}

    def begin(self, completion: RunningCompletion) -> None:
        """Let a request get guesses, as far as it allows."""
        limits = completion.job.draft
        if limits.most:
            self._requests[completion.id] = _Request(completion=completion, limits=limits)

    def end(self, completion: RunningCompletion) -> None:
        """Forget a request."""
        if self._requests.pop(completion.id, None) is not None:
            self._drafter.end(completion.id)
            self._rollback.done(completion.sequence)

    def draft(self, running: Iterable[RunningCompletion], room: int) -> None:
        """Give guesses to requests for the next decode of at most `room` tokens, if all of them are answering."""
        answering = list(running)
        self.drop(answering)
        until = self._options.until_parallel
        allowed = self._cost.known and (until == 0 or len(answering) <= until)
        if not allowed or not all(c.running for c in answering):
            return
        tokens, room = sum(c.left_to_decode for c in answering), min(room, self._rollback.longest)
        asks = self._asks(answering, min(self._rows, room - tokens), tokens)
        drafts = self._drafter.propose([ask for _, ask in asks]) if asks else []
        left, gained = self._rows, 0.0
        for (request, _), draft in zip(asks, drafts, strict=True):
            others = len(answering) - 1 + gained
            count = self._use(request, draft, min(left, room - tokens), others, tokens)
            left, tokens = left - count, tokens + count
            gained += expected(request.chances.chance(draft.evidence), count)

    def _asks(self, answering: list[RunningCompletion], most: int, tokens: int) -> list[tuple[_Request, Ask]]:
        asks: list[tuple[_Request, Ask]] = []
        for completion in answering:
            request = self._requests.get(completion.id)
            if request is None or request.chances.paused(len(completion.tokens)):
                continue
            limits = request.limits
            count = min(most, self._options.tokens, limits.most, completion.left - 1)
            if not self._drafter.free:
                count = self._best(request, self._drafter.evidence, count, len(answering) - 1, tokens)
            if count > 0 and count >= limits.least:
                least = max(self._options.min_probability, limits.min_probability)
                ask = Ask(key=completion.id, tokens=completion.tokens, most=count, min_probability=least)
                asks.append((request, ask))
        return asks

    def _best(self, request: _Request, evidence: int, most: int, others: float, tokens: int) -> int:
        """Return the number of guesses that pays; one if none did for long, because texts change."""
        chance = request.chances.chance(evidence)
        best = best_length(
            chance, most, others=others, tokens=tokens, seconds=self._cost.seconds, each=self._drafter.each
        )
        request.declined = 0 if best else request.declined + 1
        if request.declined < _TRY_AGAIN or most < 1:
            return best
        request.declined = 0
        return 1

    def _use(self, request: _Request, draft: Guesses, most: int, others: float, tokens: int) -> int:
        """Give a request as many of the guesses as are worth it; return their number."""
        count = min(most, len(draft.tokens))
        chance = request.chances.chance(draft.evidence)
        if self._drafter.free:
            least = max(self._options.min_probability, request.limits.min_probability)
            count = self._best(request, draft.evidence, count, others, tokens) if chance >= least else 0
        if count < max(1, request.limits.least) or not self._rollback.room:
            return 0
        completion = request.completion
        completion.draft = list(draft.tokens[:count])
        request.evidence, request.guessed, request.accepted = draft.evidence, count, completion.draft_accepted
        self._rollback.prepare(completion)
        return count

    def decoded(self, parts: Iterable[tuple[RunningCompletion, Slice]], skip: int) -> None:
        """Show the drafter what was decoded, after `skip` tokens of others."""
        made = []
        for c, part in parts:
            key = c.id if c.id in self._requests else NOBODY
            tokens = c.pending(part.count)
            made.append(DecodedPart(key=key, start=c.computed, tokens=tokens, answering=c.running))
        self._drafter.decoded(made, skip)

    def verified(self, completion: RunningCompletion, before: int, count: int) -> None:
        """Evaluate a decode of `count` tokens of a request from the position `before`; remove what was rejected."""
        request = self._requests.get(completion.id)
        if request is None or not request.guessed:
            return
        accepted, guessed = completion.draft_accepted - request.accepted, request.guessed
        request.guessed = 0
        length = len(completion.tokens)
        request.chances.record(request.evidence, guessed=guessed, accepted=accepted, length=length)
        if completion.computed < before + count:
            self._rollback.take_back(completion, before)
        self._rollback.done(completion.sequence)

    def drop(self, completions: Iterable[RunningCompletion]) -> bool:
        """Drop the guesses of a decode that failed; return True if there were any."""
        drafted = [c for c in completions if c.draft]
        for completion in drafted:
            completion.draft = []
            self._requests[completion.id].guessed = 0
            self._rollback.done(completion.sequence)
        return bool(drafted)

    def close(self) -> None:
        self._requests.clear()
        self._drafter.close()

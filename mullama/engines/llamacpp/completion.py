"""One running completion: its tokens, how many of them are in memory, and the choice of the next one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mullama.chat.types import TokenLogprob
from mullama.engines.base import Begun, Ended, Generate, Output, Piece, PieceDetails, Prefilled
from mullama.engines.llamacpp.batcher import PendingTokens, Slice
from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.cache.checkpoints import Scales
from mullama.engines.llamacpp.first_choices import ChosenToken
from mullama.engines.llamacpp.sampling.candidates import log_probabilities
from mullama.engines.llamacpp.sampling.constraint import ConstraintState
from mullama.engines.llamacpp.sampling.reasoning_budget import ReasoningBudget
from mullama.engines.llamacpp.sampling.sampler import Sampler
from mullama.engines.llamacpp.text_stream import DecodedText, Detokenizer
from mullama.engines.llamacpp.vocabulary import Vocabulary

Reason = Literal["stop", "stop_sequence", "length", "cancelled"]
_TRIES = 64  # tokens that the constraint may refuse at one position before the answer ends


class RunningCompletion:
    """Tracks a job from its prompt to its end.

    `tokens` are prompt and answer, the first `computed` of them are in memory, and `draft` tokens follow them.
    """

    # A dictionary of so many attributes belongs to one object, and a decode leaves none of it in the caches.
    __slots__ = (
        "_begun",
        "_budget",
        "_constraint",
        "_detailed",
        "_echo",
        "_echoed",
        "_ends",
        "_last_row",
        "_limit",
        "_longest",
        "_reports_text_alone",
        "_text",
        "_unwritten",
        "_vocabulary",
        "_writes_later",
        "age",
        "cached",
        "cancelled",
        "chooses_alone",
        "computed",
        "draft",
        "draft_accepted",
        "draft_accepted_at",
        "draft_tokens",
        "drafts",
        "first",
        "id",
        "job",
        "keep",
        "next_token",
        "prompt",
        "reason",
        "sampler",
        "scales",
        "sequence",
        "submitted",
        "tokens",
    )  # fmt: skip

    def __init__(
        self,
        job: Generate,
        prompt: list[int],
        vocabulary: Vocabulary,
        sampler: Sampler,
        constraint: ConstraintState | None,
        *,
        room: int,
        budget: ReasoningBudget | None = None,
    ) -> None:
        self.job = job
        self.id = job.id
        self.prompt = prompt
        self.tokens = list(prompt)
        self.computed = 0
        self.next_token = Slice(key=job.id, count=1, rows=1, last=True)
        self.draft: list[int] = []
        self.sequence = -1
        self.age = 0  # number among the requests of its context
        self.scales: Scales = ()  # of the adapters
        self.cached = 0
        self.cancelled = False
        self.keep = job.cache  # later requests may share its tokens
        self.reason: Reason | None = None
        self.draft_tokens = 0
        self.draft_accepted = 0
        self.drafts = 0
        self.draft_accepted_at: list[int] = []
        self._vocabulary = vocabulary
        self._ends = frozenset(() if job.ignore_eos else vocabulary.ends)
        self.sampler = sampler
        self._constraint = constraint
        self._budget = budget
        self._text = Detokenizer(job.stop)
        self._unwritten: int | None = None  # the last token, if the text lacks it
        self._echo = Detokenizer(()) if job.echo else None
        wanted = room if job.max_tokens is None or job.max_tokens < 0 else job.max_tokens
        self._limit = min(wanted, room)
        self._longest = len(prompt) + self._limit  # tokens of prompt and answer
        self._writes_later = constraint is None and job.logprobs is None and budget is None and not job.stop
        self._reports_text_alone = not job.details and not job.echo
        self.chooses_alone = job.post_sampling and job.logprobs is not None
        self.submitted = self._begun = self.first = 0.0
        self._echoed = 0  # tokens of the prompt that were reported
        self._detailed = len(prompt)  # tokens of prompt and answer that were reported with details
        self._last_row: Floats | None = None
        sampler.accept_prompt(self._texts(prompt))

    @property
    def running(self) -> bool:
        """True when the prompt is in memory, and every decode results in a token."""
        return self.computed >= len(self.prompt)

    @property
    def finished(self) -> bool:
        """True when nothing is left to compute. A prompt that is echoed is computed to its end."""
        return self.reason is not None and (self._echo is None or self.running)

    @property
    def all_logits(self) -> bool:
        """True while every token needs logits, because the prompt's logprobs are reported."""
        return self.job.echo and self.job.logprobs is not None and not self.running

    @property
    def left_to_decode(self) -> int:
        """Tokens that are not in memory yet."""
        return len(self.tokens) - self.computed

    def pending_tokens(self, first: float) -> PendingTokens:
        """Return the tokens to decode. `first` is the time of the earliest first token among running answers."""
        drafted = len(self.draft)
        return PendingTokens(
            key=self.id,
            tokens=self.left_to_decode + drafted,
            running=self.running,
            rows=1 + drafted,
            all_logits=self.all_logits,
            late=self.submitted > first,
        )

    def pending(self, count: int) -> list[int]:
        """Return the next `count` tokens to decode."""
        start = self.computed
        if not self.draft:
            return self.tokens[start : start + count]
        return (self.tokens[start:] + self.draft)[:count]

    def begin(self, sequence: int, cached: int, now: float) -> Begun:
        """Start in this sequence, which holds the first `cached` tokens."""
        self.sequence, self.cached, self.computed = sequence, cached, cached
        self._begun = now
        self._append_forced()
        texts = self._texts(self.prompt)
        text = self._vocabulary.decode(texts).decode("utf-8", "replace") if self.job.want_prompt else ""
        cells = self._cells
        return Begun(id=self.id, prompt_tokens=cells(len(self.prompt)), cached_tokens=cells(cached), prompt=text)

    def _cells(self, length: int) -> int:
        """Return the tokens of a beginning of this length; media take more of them than positions."""
        return length

    def _texts(self, tokens: Sequence[int]) -> Sequence[int]:
        """Return the tokens that are of the vocabulary: those of media are not."""
        return tokens

    def prefilled(self, now: float) -> Prefilled:
        """Return the progress of the prompt."""
        total, done = self._cells(len(self.prompt)), self._cells(min(self.computed, len(self.prompt)))
        return Prefilled(id=self.id, done=done, total=total, seconds=now - self._begun)

    def chooses_one(self, part: Slice) -> bool:
        """Return True if after the decode of this part one token is chosen, from one row of logits."""
        return (
            part.rows == 1
            and self.reason is None
            and not self.draft
            and self.computed + part.count == len(self.tokens)
            and self._limit > 0
            and not self.chooses_alone
        )

    @property
    def alternatives(self) -> int | None:
        return self.job.logprobs

    def mask(self) -> bytes | None:
        """Return the tokens that the grammar allows next, one bit each, lowest first; None for all."""
        return None if self._constraint is None else self._constraint.mask()

    @property
    def continues(self) -> bool:
        """True if its last token is all that it needs decoded."""
        return not self.draft and self.reason is None and len(self.prompt) <= self.computed == len(self.tokens) - 1

    def continued(self, logits: Floats, index: int, choice: ChosenToken | None, *, later: bool = False) -> int:
        """Record the decode of the last token, with the row of its logits; return the tokens that the answer gets.

        It does what `decoded` does for a request that `continues`, in fewer steps. choice: as for `decoded`. later:
        `outputs` may make the text of the token.
        """
        self.computed += 1
        constraint = self._constraint
        if (
            choice is None
            or choice.error is not None
            or self._budget is not None
            or (constraint is not None and not constraint.accept(choice.token, self._vocabulary.piece(choice.token)))
        ):
            before = len(self.tokens)
            self._answer(logits[index : index + 1], 0, choice)
            return len(self.tokens) - before
        token = choice.token
        if self.sampler.looks_back:
            self.sampler.accept(token)
        if token in self._ends:
            self.reason = "stop"
            return 0
        logprob = None if choice.log_probabilities is None else self._named(token, *choice.log_probabilities)
        self.tokens.append(token)
        if later and self._writes_later:
            self._unwritten = token
        elif self._write(token, logprob):
            self.reason = "stop_sequence"
            return 1
        if len(self.tokens) >= self._longest:
            self.reason = "length"
        elif constraint is not None:
            before = len(self.tokens)
            self._append_forced()
            return 1 + len(self.tokens) - before
        return 1

    def _write(self, token: int, logprob: TokenLogprob | None = None) -> bool:
        """Add a token to the text; return True when a stop string ends the text."""
        text = self._vocabulary.text(token)
        if text is None:
            return self._text.add(self._vocabulary.piece(token), logprob)
        return self._text.add_text(text, logprob)

    def decoded(self, count: int, rows: Floats, now: float, choice: ChosenToken | None = None) -> None:
        """Record that the next `count` tokens are in memory; `rows` are the logits of the last of them.

        choice: of the token of the only row, if it was made with those of other requests.
        """
        start, end = self.computed, self.computed + count
        first = end - len(rows)  # the position of the first row
        self.computed = min(end, len(self.tokens))  # draft tokens count once they are accepted
        if self._echo is not None and start < len(self.prompt):
            self._echo_prompt(start, first, rows)
        if start < len(self.prompt) <= self.computed and not self.first:
            self.first = now
        if self._limit <= 0 and self.running:
            self.reason = "length"
        if self.reason is not None or not len(rows) or self.computed < len(self.tokens):
            return
        self._answer(rows, len(self.tokens) - 1 - first, choice)

    def _answer(self, rows: Floats, index: int, choice: ChosenToken | None) -> None:
        """Choose a token from the row at `index`; while it equals the draft, choose the next from the next row."""
        draft, self.draft = self.draft, []
        self.draft_tokens += len(draft)
        self.drafts += bool(draft)
        for step in range(len(draft) + 1):
            row = rows[index + step]
            token = self._choose(row, choice)
            if token is None or not self._append(token, row, choice):
                return
            if step == len(draft) or token != draft[step] or (self._budget is not None and self._budget.spent):
                break
            self._accepted(step)
            self.computed += 1
        self._append_forced()

    def _accepted(self, position: int) -> None:
        """Count a guess that was right."""
        self.draft_accepted += 1
        if position == len(self.draft_accepted_at):
            self.draft_accepted_at.append(0)
        self.draft_accepted_at[position] += 1

    def _choose(self, row: Floats, choice: ChosenToken | None) -> int | None:
        """Return the next token, `choice` if that is one; None, with a reason, when the constraint refuses all."""
        if choice is not None and choice.error is not None:
            raise choice.error
        constraint = self._constraint
        if constraint is None:
            token = self.sampler.choose(row) if choice is None else choice.token
            self.sampler.accept(token)
            return token
        for _ in range(_TRIES):
            token = self.sampler.choose(row, constraint.mask()) if choice is None else choice.token
            choice = None
            if constraint.accept(token, self._vocabulary.piece(token)):
                self.sampler.accept(token)
                return token
            row = row.copy()
            row[token] = -np.inf
        self.reason = "stop"
        return None

    def _append(self, token: int, row: Floats | None, choice: ChosenToken | None = None) -> bool:
        """Add a chosen token to the answer; return False when the answer ends."""
        if token in self._ends:
            self.reason = "stop"
            return False
        logprob = None
        if self.job.logprobs is not None and row is not None:
            logprob = self._drawn(token) if self.job.post_sampling else self._logprob(token, row, choice)
        self.tokens.append(token)
        piece = self._vocabulary.piece(token)
        if self._budget is not None:
            self._budget.add(piece)
        if self._text.add(piece, logprob):
            self.reason = "stop_sequence"
        elif len(self.tokens) >= self._longest:
            self.reason = "length"
        return self.reason is None

    def _append_forced(self) -> None:
        """Append the tokens that end the reasoning, and those that the grammar determines.

        They need no logits, and the next decode computes them all.
        """
        if self._budget is not None and not self._close_reasoning(self._budget):
            return
        if self._constraint is None or self._limit <= 0:
            return
        forced = self._constraint.forced() if self.job.logprobs is None else ()
        for token in forced:
            self.sampler.accept(token)
            if not self._append(token, None):
                return
        if self._constraint.done:
            self.reason = "stop"

    def _close_reasoning(self, budget: ReasoningBudget) -> bool:
        """Append the tokens that end a reasoning that is too long; return False when the answer ends there.

        A grammar that begins after the reasoning may refuse the white space behind its mark.
        """
        for token in budget.closing(within_character=self._text.within_character) if self._limit > 0 else ():
            if self._constraint is not None:
                if not self._constraint.allows(token):
                    return True
                self._constraint.accept(token, self._vocabulary.piece(token))
            self.sampler.accept(token)
            if not self._append(token, None):
                return False
        return True

    def _drawn(self, token: int) -> TokenLogprob:
        """Return the probability with which the token was drawn, as a logarithm."""
        probability, best = self.sampler.last_draw(token, self.job.logprobs or 0)
        own = math.log(probability) if probability > 0 else -math.inf
        return self._named(token, own, [(t, math.log(p)) for t, p in best])

    def _logprob(self, token: int, row: Floats, choice: ChosenToken | None = None) -> TokenLogprob:
        known = choice.log_probabilities if choice is not None and choice.token == token else None
        return self._named(token, *(known or log_probabilities(row, token, self.job.logprobs or 0)))

    def _named(self, token: int, logprob: float, best: Sequence[tuple[int, float]] = ()) -> TokenLogprob:
        """Return a token and its alternatives with their texts."""
        named, top = self._vocabulary.named, []
        for other, value in best:
            text, piece = named[other]
            top.append(TokenLogprob(id=other, text=text, bytes=piece, logprob=value))
        text, piece = named[token]
        return TokenLogprob(id=token, text=text, bytes=piece, logprob=logprob, top=tuple(top))

    def _echo_prompt(self, start: int, first: int, rows: Floats) -> None:
        """Report prompt tokens. The logits of a token are in the row of the token before; the first one has none."""
        assert self._echo is not None
        for position in range(max(start, self._echoed), min(self.computed, len(self.prompt))):
            token = self.prompt[position]
            logprob = None
            if self.job.logprobs is not None:
                before = self._last_row if position == start else rows[position - 1 - first]
                logprob = self._named(token, math.nan) if before is None else self._logprob(token, before)
            self._echo.add(self._vocabulary.piece(token), logprob)
        self._echoed = min(self.computed, len(self.prompt))
        self._last_row = rows[-1].copy() if len(rows) else None

    def outputs(self, now: float, decodes: int = 0, requests: int = 0) -> list[Output]:
        """Return the text since the last step, and the end if the answer has ended.

        decodes, requests: the counters of the engine for the end.
        """
        if self._unwritten is not None:
            self._write(self._unwritten)
            self._unwritten = None
        if self._reports_text_alone and self.reason is None:
            taken = self._text.take_text()
            return [Piece(id=self.id, text=taken[0], count=taken[1], logprobs=taken[2])] if taken else []
        outputs: list[Output] = []
        if self._echo is not None:
            end = self.computed >= len(self.prompt)
            echoed = self._echo.finish() if end else self._echo.take()
            outputs += self._piece(echoed, now, echo=True)
            if end:
                self._echo = None
        if self.reason is None:
            return [*outputs, *self._piece(self._text.take(), now)]
        return [*outputs, *self._piece(self._text.finish(), now), self._ended(now, decodes, requests)]

    def _piece(self, part: DecodedText | None, now: float, *, echo: bool = False) -> Sequence[Output]:
        if part is None:
            return ()
        details = self._piece_details(part.count, now) if self.job.details and not echo else None
        return (
            Piece(id=self.id, text=part.text, count=part.count, logprobs=part.logprobs, echo=echo, details=details),
        )

    def _piece_details(self, count: int, now: float) -> PieceDetails:
        start = self._detailed
        self._detailed += count
        return PieceDetails(
            tokens=tuple(self.tokens[start : start + count]),
            prompt_seconds=self.first - self._begun,
            decode_seconds=now - self.first,
        )

    def _ended(self, now: float, decodes: int, requests: int) -> Ended:
        assert self.reason is not None
        return Ended(
            id=self.id,
            reason=self.reason,
            stop=self._text.stop,
            prompt_tokens=self._cells(len(self.prompt)),
            cached_tokens=self._cells(self.cached),
            completion_tokens=self.completion_tokens,
            prompt_seconds=self.first - self._begun if self.running else 0.0,
            decode_seconds=now - self.first if self.running else 0.0,
            draft_tokens=self.draft_tokens,
            draft_accepted=self.draft_accepted,
            tokens=tuple(self._texts(self.tokens)) if self.job.want_tokens else (),
            held_tokens=self._cells(self.computed),
            drafts=self.drafts,
            draft_accepted_at=tuple(self.draft_accepted_at),
            engine_decodes=decodes,
            engine_requests=requests,
        )

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens) - len(self.prompt)

    @property
    def left(self) -> int:
        """Tokens that the answer may still have."""
        return self._limit - self.completion_tokens

    def close(self) -> None:
        self.sampler.close()

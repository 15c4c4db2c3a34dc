"""Vectors and rank scores: many inputs per decode, with the pooling that the model was trained for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from mullama.engines.base import Embed, Embedded, Ended, Failed, Output
from mullama.engines.llamacpp.binding.context import ABORTED, Floats, NativeBatch, NativeContext
from mullama.engines.llamacpp.context import Counters
from mullama.errors import EngineFailed
from mullama.struct import Struct, field


class _Work(Struct, eq=False):
    """A job with its inputs as tokens, and the vectors computed so far."""

    job: Embed
    inputs: list[list[int]]
    vectors: list[Floats | None] = field(default_factory=list)
    done: int = 0  # inputs
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.vectors = [None] * len(self.inputs)


class VectorContext:
    """A context that computes vectors with the pooling mean, cls, last or rank, or with none a vector of each token.

    The mean of a causal model is computed here from the vectors of its tokens, because llama.cpp pools only within
    one physical batch.
    """

    def __init__(self, native: NativeContext, counters: Counters, *, pooling: str, sequences: int, batch: int) -> None:
        self._counters = counters
        self.native = native
        self.pooling = pooling
        self._sequences = sequences
        self._preferred = min(batch, native.batch_size)
        self._batch = NativeBatch(native.batch_size)
        self._jobs: deque[_Work] = deque()
        self._interruptible = False
        self._aborted = False

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    @property
    def waiting(self) -> int:
        return len(self._jobs)

    @property
    def longest(self) -> int:
        """Most tokens of one input."""
        return self.native.batch_size

    def submit(self, job: Embed, inputs: list[list[int]]) -> None:
        self._jobs.append(_Work(job, inputs))

    def cancel(self, id: int) -> None:
        for work in self._jobs:
            if work.job.id == id:
                work.cancelled = True

    def interrupt(self) -> None:
        """Abort the running decode; never two in a row, so that there is progress. Thread-safe."""
        if self._interruptible:
            self.native.stop_decode()

    def step(self) -> list[Output]:
        """One decode over as many inputs as fit, of one or more jobs."""
        outputs = self._drop_cancelled()
        parts = self._pack()
        if not parts:
            return outputs
        try:
            self._decode(parts)
        except Exception as error:  # noqa: BLE001 - a failure ends its requests alone
            return outputs + [self._fail(work, error) for work in {id(w): w for w, _ in parts}.values()]
        return outputs + self._finished()

    def wait(self) -> None:
        """There is always something to decode here."""

    def abandon(self) -> list[Output]:
        for work in self._jobs:
            work.cancelled = True
        return self._drop_cancelled()

    def close(self) -> None:
        self._jobs.clear()
        self.native.close()

    def _drop_cancelled(self) -> list[Output]:
        dropped = [work for work in self._jobs if work.cancelled]
        for work in dropped:
            self._jobs.remove(work)
        return [Ended(id=work.job.id, reason="cancelled") for work in dropped]

    def _fail(self, work: _Work, error: Exception) -> Output:
        self._jobs.remove(work)
        return Failed.of(work.job.id, error)

    def _pack(self) -> list[tuple[_Work, int]]:
        """Return (job, input index) for the next decode, in order; an input longer than the batch is decoded alone."""
        parts: list[tuple[_Work, int]] = []
        tokens = 0
        for work in self._jobs:
            for index in range(work.done, len(work.inputs)):
                size = len(work.inputs[index])
                full = tokens + size > max(self._preferred, size)
                if parts and (full or len(parts) == self._sequences):
                    return parts
                parts.append((work, index))
                tokens += size
        return parts

    def _decode(self, parts: Sequence[tuple[_Work, int]]) -> None:
        self._batch.clear()
        for sequence, (work, index) in enumerate(parts):
            tokens = work.inputs[index]
            self._batch.add(sequence, 0, tokens, len(tokens))
        self._interruptible = not self._aborted
        status = self.native.decode(self._batch)
        self._interruptible = False
        self._aborted = status == ABORTED
        self._counters.steps += 1
        self._counters.requests += len(parts)
        if status == ABORTED:
            self.native.allow_decode()
            self.native.clear()
            return
        if status != 0:
            raise EngineFailed("the inputs do not fit into the context")
        start = 0
        for sequence, (work, index) in enumerate(parts):
            end = start + len(work.inputs[index])
            work.vectors[index] = self._vector(sequence, start, end, work.job.normalize)
            work.done = index + 1
            start = end
        self.native.clear()

    def _vector(self, sequence: int, start: int, end: int, normalize: bool) -> Floats:
        """Return the vector of an input, or its (tokens, length) vectors without pooling."""
        if self.pooling == "rank":
            return self.native.sequence_embedding(sequence, 1)
        if self.pooling == "none":
            return self.native.token_embeddings(self._batch.count)[start:end].copy()
        if self.native.pooling == "none":
            rows = self.native.token_embeddings(self._batch.count)[start:end]
            vector = rows.mean(axis=0, dtype=np.float64) if self.pooling == "mean" else rows[-1]
        else:
            length = self.native.model.embedding_length
            vector = self.native.sequence_embedding(sequence, length)
        size = float(np.linalg.norm(vector)) if normalize else 1.0
        result: Floats = np.asarray(vector / (size or 1.0), np.float32)
        return result

    def _finished(self) -> list[Output]:
        outputs: list[Output] = []
        for work in [w for w in self._jobs if w.done == len(w.inputs)]:
            self._jobs.remove(work)
            found = [v for v in work.vectors if v is not None]
            rows = tuple(map(len, found)) if self.pooling == "none" else ()
            vectors = tuple(tuple(row.tolist()) for v in found for row in (v if rows else (v,)))
            tokens = sum(len(i) for i in work.inputs)
            counters = self._counters
            outputs.append(
                Embedded(
                    id=work.job.id,
                    vectors=vectors,
                    rows=rows,
                    tokens=tokens,
                    engine_decodes=counters.steps,
                    engine_requests=counters.requests,
                )
            )
        return outputs

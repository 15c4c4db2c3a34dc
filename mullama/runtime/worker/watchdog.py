"""Decides when a worker hangs. Pure: times are monotonic seconds that arrive with the observations.

*Progress* is an answer, an output, a finished command or decode, or more of a file in memory. *Activity* is use of a
processor: a slow decode on a busy machine shows nothing else for minutes, and so does an endless loop. A worker that
waits for commands never hangs.

A job that outlived its time limit and whose cancellation the worker does not confirm is *overdue*. It proves that the
worker neither computes nor listens, so shorter limits apply.
"""

from __future__ import annotations

from mullama.struct import Struct

LEAST_SHARE = 0.01
"""Part of one processor from which a process counts as active; answers to pings take less."""


class StallLimits(Struct, frozen=True, kw_only=True):
    """Seconds."""

    quiet: float = 60.0
    """Without progress and without activity, or without an answer to a ping."""
    active: float = 600.0
    """Without progress, but with activity: a decode of a large model on a slow machine takes minutes."""
    overdue_quiet: float = 3.0
    """As `quiet`, since a job is overdue."""
    overdue_active: float = 30.0
    """As `active`, since a job is overdue."""
    host: float = 5.0
    """Without progress until the hosts are asked whose devices the worker uses."""
    ping: float = 5.0
    """Between two observations."""
    overdue_ping: float = 0.5
    """Between two observations while a job is overdue."""


class ProcessUsage(Struct, frozen=True, kw_only=True):
    """Resources that a process has used since its start."""

    cpu: float
    """Seconds of processor time."""
    memory: int
    """Resident bytes."""
    read: int
    """Bytes read from storage."""


class Hang(Struct, frozen=True, kw_only=True):
    """The verdict on a worker that hangs."""

    seconds: float
    overdue: bool

    def __str__(self) -> str:
        after = "after a request exceeded its time limit " if self.overdue else ""
        return f"the worker hung: {after}it made no progress for {self.seconds:.0f} s"


_GROWTH = 1 << 20  # bytes; less is the noise of an interpreter


class Watchdog:
    """Observes one worker."""

    def __init__(self, now: float, limits: StallLimits) -> None:
        self.limits = limits
        self._progress = self._active = self._answered = now
        self._overdue: float | None = None
        self._steps: int | None = None  # by the last answer to a ping; None: the next one says nothing yet
        self._usage: ProcessUsage | None = None
        self._usage_at = now

    @property
    def interval(self) -> float:
        """Seconds until the next observation is due."""
        return self.limits.ping if self._overdue is None else self.limits.overdue_ping

    def progressed(self, now: float) -> None:
        """Note an answer, an output or a report of a load."""
        self._progress = self._active = now
        self._overdue = None

    def answered(self, now: float, *, steps: int, idle: bool) -> bool:
        """Note the answer to a ping and return True if it shows progress.

        steps: finished commands and decodes; idle: the worker waits for commands.
        """
        moved = idle or self._steps not in (None, steps)
        self._steps, self._answered = steps, now
        if moved:
            self.progressed(now)
        return moved

    def overdue(self, now: float) -> None:
        """Note that a job ended at its time limit and that the worker does not confirm its cancellation."""
        if self._overdue is None:
            self._overdue = now
            self._steps = None  # earlier steps prove nothing

    def used(self, now: float, usage: ProcessUsage | None) -> None:
        """Note the resources used so far; None where the system does not report them, which counts as activity."""
        if usage is None:
            self._active = now
            return
        before, since = self._usage, now - self._usage_at
        if before is not None and since <= 0:
            return
        if before is None or usage.memory > before.memory + _GROWTH or usage.read > before.read + _GROWTH:
            self._progress = self._active = now
            self._usage, self._usage_at = usage, now
        else:
            if usage.cpu - before.cpu > LEAST_SHARE * since:
                self._active = now
            # The memory stays the highest so far: a process that is swapped out and in again makes no progress.
            self._usage = ProcessUsage(cpu=usage.cpu, memory=max(before.memory, usage.memory), read=before.read)
            self._usage_at = now

    def stalled(self, now: float) -> float:
        """Return the seconds without progress."""
        return now - self._progress

    def verdict(self, now: float) -> Hang | None:
        """Return the verdict on a worker that hangs."""
        limits = self.limits
        if self._overdue is not None:
            waited, quiet = now - self._overdue, now - max(self._overdue, self._active)
            if quiet >= limits.overdue_quiet or waited >= limits.overdue_active:
                return Hang(seconds=now - self._progress, overdue=True)
        quiet = now - min(self._active, max(self._answered, self._progress))
        if quiet >= limits.quiet or now - self._progress >= limits.active:
            return Hang(seconds=now - self._progress, overdue=False)
        return None

"""The token bucket: a limit that refills steadily. Pure."""

from __future__ import annotations

from mullama.struct import Struct


class Bucket(Struct, kw_only=True):
    """Holds up to `capacity` units and gains `capacity` per `seconds`.

    Units are taken when they are known, so the level may be below 0; then nothing is accepted until it is refilled.
    Times are seconds of any clock. A clock that goes back adds nothing, one that jumps forward fills the bucket once.
    """

    capacity: float
    seconds: float
    level: float
    at: float
    """The time of the last look."""

    def refill(self, now: float) -> None:
        """Add what the time since the last look gives."""
        passed = now - self.at
        if passed > 0 and self.level < self.capacity:  # this runs for each request, so it calls nothing
            level = self.level + passed * self.capacity / self.seconds
            self.level = min(self.capacity, level)
        self.at = now

    def wait(self, amount: float = 1.0) -> float:
        """Return the seconds until this amount is there, 0 if it is there now. Call `refill` first.

        An amount above the capacity waits for a full bucket.
        """
        missing = min(amount, self.capacity) - self.level
        return max(0.0, missing) * self.seconds / self.capacity

    def take(self, amount: float) -> None:
        """Take an amount, also one that is not there."""
        self.level -= amount

    def resize(self, capacity: float, seconds: float) -> None:
        """Change the limit; the used share stays as it is."""
        self.level *= capacity / self.capacity
        self.capacity, self.seconds = capacity, seconds

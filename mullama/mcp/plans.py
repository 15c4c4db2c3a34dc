"""The plans that wait for their apply: a bounded number, each for one caller and for an hour."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from mullama.errors import NotFound
from mullama.struct import Struct

_MOST = 64
_SECONDS = 3600.0


class WaitingPlan(Struct, frozen=True, kw_only=True):
    """A change that was planned. It is refused if the manifest file or the applied revision is another one by then."""

    owner: str
    made: float
    """Seconds of a clock that never goes back."""
    revision: str
    """The applied revision at the time of the plan."""
    text: str | None = None
    """The text of the manifest; None for an earlier revision that is applied again."""
    digest: str = ""
    """Of the text that it replaces."""
    profiles: tuple[str, ...] | None = None
    to: int | None = None
    """The number of the earlier revision."""


class PlanBook:
    """Keeps plans by an id that cannot be guessed."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, WaitingPlan] = OrderedDict()

    def add(self, plan: WaitingPlan) -> str:
        """Keep a plan, and drop the oldest above 64; return its id."""
        id = f"plan-{secrets.token_hex(8)}"
        self._plans[id] = plan
        while len(self._plans) > _MOST:
            self._plans.popitem(last=False)
        return id

    def find(self, id: str, owner: str, now: float) -> WaitingPlan:
        """Return a plan of this caller. Raises `NotFound` for another id, one of another key, and an old one."""
        plan = self._plans.get(id)
        if plan is None or plan.owner != owner or now - plan.made > _SECONDS:
            raise NotFound(
                f"no plan {id[:40]!r} waits", hint="call the tool plan: a plan waits for an hour, until the server ends"
            )
        return plan

    def remove(self, id: str) -> None:
        self._plans.pop(id, None)

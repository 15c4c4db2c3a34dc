"""Carries out the steps of a rollout on the hosts of a fleet, and reports the result of each host.

The hosts of one stage change at the same time, and a stage begins after the end of the one before. The first host that
fails ends the rollout: those that change beside it are waited for, and no other begins. Nothing is kept here: each host
commits its own revision, so a later run plans from what the hosts have and continues.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Literal

from mullama.client.http import StreamStop
from mullama.errors import Kind, MullamaError, Unavailable
from mullama.runtime.fleet import HostState, RolloutEnd
from mullama.struct import Struct, field, replace
from mullama.targets.fleet.hosts import FleetHostPort, HostStep
from mullama.units import duration

STEP_SECONDS = 3600.0
"""The longest change of one host. Its downloads count."""

SLOW_SECONDS = 60.0
"""A host that changes and reports nothing for this time is shown as slow."""

_AT_ONCE = 32
_LOOK_SECONDS = 0.5  # a signal interrupts the wait of the main thread within this time


class Stage(Struct, frozen=True, kw_only=True):
    """Hosts that change at the same time."""

    title: str
    """The work of the stage, for people."""
    steps: Mapping[str, HostStep]
    """By host, without `expect`, which is known when the step begins."""
    models: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By host, the models that must not have failed after the step."""
    leaving: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By host, the models that a later stage removes from it: one that cannot be loaded does not end the rollout."""
    canary: bool = False
    """True for a host that changes before the others."""
    pause: float | Literal["manual"] = 0.0
    """Time before the next stage in seconds; `manual` asks."""


class HostOutcome(Struct, frozen=True, kw_only=True):
    """The end of the steps of one host."""

    state: HostState
    done: int = 0
    """Number of its steps that ended."""
    steps: int = 0
    generation: int | None = None
    revision: str | None = None
    message: str = ""
    outcome: str = ""
    """Of a failure: `partly_applied`, or the kind of the error."""
    hint: str = ""


class FleetOutcome(Struct, frozen=True, kw_only=True):
    """The end of a rollout."""

    ended: RolloutEnd
    hosts: Mapping[str, HostOutcome]

    @property
    def outcome(self) -> str:
        """`applied`, `paused`, `interrupted`, or the outcome of the first host that failed."""
        if self.ended != "failed":
            return self.ended
        return next((host.outcome for host in self.hosts.values() if host.state == "failed"), Kind.INTERNAL.value)

    def tree(self) -> dict[str, Any]:
        """Return the published form."""
        hosts = {
            name: {
                "state": host.state, "steps_done": host.done, "steps": host.steps, "generation": host.generation,
                "revision": host.revision, "outcome": host.outcome or None, "message": host.message, "hint": host.hint,
            }
            for name, host in self.hosts.items()
        }  # fmt: skip
        return {"event": "result", "format": "mullama.fleet/1", "outcome": self.outcome, "hosts": hosts}


class RolloutProgress(Struct, frozen=True, kw_only=True):
    """A rollout at one moment."""

    stage: int = 0
    """The present or last stage, from 1; 0 before the first."""
    stages: int
    title: str = ""
    pause: float | Literal["manual"] | None = None
    """The pause after the stage while it lasts."""
    canary: tuple[str, ...] = ()
    """The hosts of the stages before the others."""
    hosts: Mapping[str, HostOutcome]


Observer = Callable[[str, Mapping[str, Any]], None]
"""Receives the name of a host, "" for the fleet, and one event. It is called by one thread at a time."""


class FleetRun:
    """One run of a rollout. `outcome` is current at any time, also after an exception.

    hosts: by name, all of the fleet. revisions: the applied revision of each host when the plan was made. require: is
    called before each step and raises when the controller must stop. confirm: answers at a manual pause; None ends
    there. sleep: waits between stages. changed: is called after each change of `progress`.
    """

    def __init__(
        self,
        hosts: Mapping[str, FleetHostPort],
        stages: Sequence[Stage],
        revisions: Mapping[str, str],
        *,
        require: Callable[[], None],
        observe: Observer = lambda host, event: None,
        confirm: Callable[[str], bool] | None = None,
        changed: Callable[[], None] = lambda: None,
        within: float = STEP_SECONDS,
        slow: float = SLOW_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts, self._stages, self._revisions = hosts, stages, dict(revisions)
        self._require, self._observe, self._confirm, self._changed = require, observe, confirm, changed
        self._within, self._slow, self._sleep, self._clock = within, slow, sleep, clock
        self._lock = threading.Lock()
        self._stops: dict[str, StreamStop] = {}
        self._heard: dict[str, float] = {}
        steps = [name for stage in stages for name in stage.steps]
        self._outcomes = {
            name: HostOutcome(
                state="not reached" if name in steps else "unchanged",
                steps=steps.count(name),
                revision=self._revisions.get(name),
            )
            for name in hosts
        }
        self._ended: RolloutEnd = "interrupted"
        self._progress = RolloutProgress(
            stages=len(stages), hosts={}, canary=tuple(name for stage in stages if stage.canary for name in stage.steps)
        )

    @property
    def outcome(self) -> FleetOutcome:
        with self._lock:
            return FleetOutcome(ended=self._ended, hosts=dict(self._outcomes))

    @property
    def progress(self) -> RolloutProgress:
        with self._lock:
            return replace(self._progress, hosts=dict(self._outcomes))

    def run(self) -> FleetOutcome:
        """Carry out all stages. `KeyboardInterrupt` leaves the hosts that change to themselves, and is raised."""
        for number, stage in enumerate(self._stages, 1):
            self._move(stage=number, title=stage.title)
            self._tell("", {"event": "stage", "number": number, "of": len(self._stages), "title": stage.title,
                            "hosts": list(stage.steps)})  # fmt: skip
            if not self._carry_out(stage):
                self._ended = "failed"
                return self.outcome
            if number < len(self._stages) and not self._may_continue(stage):
                self._ended = "paused"
                return self.outcome
        self._ended = "applied"
        return self.outcome

    def _may_continue(self, stage: Stage) -> bool:
        if stage.pause == "manual":
            if self._confirm is None:
                return False
            self._move(pause="manual")
            names = ", ".join(stage.steps)
            confirmed = self._confirm(f"{names} changed. Continue with the other hosts?")
            self._move(pause=None)
            return confirmed
        if stage.pause:
            self._move(pause=stage.pause)
            self._tell("", {"event": "pause", "seconds": stage.pause})
            self._sleep(stage.pause)
            self._move(pause=None)
        return True

    def _carry_out(self, stage: Stage) -> bool:
        """Change the hosts of a stage and return True if none failed."""
        with self._pool(len(stage.steps)) as pool:
            waiting = list(stage.steps.items())
            running: dict[Future[HostOutcome], str] = {}
            failed = False
            while running or (waiting and not failed):
                while waiting and not failed and len(running) < _AT_ONCE:
                    name, step = waiting.pop(0)
                    try:
                        self._require()
                    except MullamaError as error:
                        self._note(name, self._failure(name, error))
                        failed = True
                        break
                    self._note(name, replace(self._outcomes[name], state="running"))
                    self._heard[name] = self._clock()
                    running[pool.submit(self._change, name, step, stage)] = name
                done, _ = wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    outcome = future.result()
                    self._note(name, outcome)
                    self._tell(name, {"event": "host", "state": outcome.state, "message": outcome.message,
                                      "generation": outcome.generation})  # fmt: skip
                    failed = failed or outcome.state == "failed"
                self._look_for_slow(running.values())
        return not failed

    @contextlib.contextmanager
    def _pool(self, hosts: int) -> Iterator[ThreadPoolExecutor]:
        pool = ThreadPoolExecutor(max(1, min(_AT_ONCE, hosts)), thread_name_prefix="fleet")
        try:
            yield pool
        except BaseException:
            for stop in list(self._stops.values()):
                stop.stop()  # the hosts continue: only their progress is not read any more
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _change(self, name: str, step: HostStep, stage: Stage) -> HostOutcome:
        """Carry out the step of one host, and return its result."""
        models, leaving = stage.models.get(name, ()), stage.leaving.get(name, ())
        stop = self._stops[name] = StreamStop()
        before = self._outcomes[name]
        try:
            failed = self._failed_models(name, models)
            result = self._result(name, replace(step, expect=self._revisions.get(name)), stop)
            after = replace(
                before,
                generation=result.get("generation", before.generation),
                revision=result.get("revision", before.revision),
                done=before.done + 1,
                message=str(result.get("message") or ""),
            )
            if result["outcome"] != "applied" and not _only(leaving, result):
                return replace(after, state="failed", done=before.done, outcome=str(result["outcome"]),
                               message=_reason(result), hint=str(result.get("hint") or ""))  # fmt: skip
            changed = before.done > 0 or after.revision != self._revisions.get(name)
            if after.revision is not None:
                self._revisions[name] = after.revision
            if lost := self._failed_models(name, models) - failed:
                raise Unavailable(f"{name}: {', '.join(sorted(lost))} does not serve after the change")
            return replace(after, state="changed" if changed else "unchanged")
        except MullamaError as error:
            return self._failure(name, error)
        finally:
            del self._stops[name]

    def _result(self, name: str, step: HostStep, stop: StreamStop) -> Mapping[str, Any]:
        """Read the progress of a step to its result. Raises the error of the host, and `Unavailable` without one."""
        from mullama.client.errors import error_from_tree

        for event in self._hosts[name].change(step, within=self._within, stop=stop):
            self._heard[name] = self._clock()
            if event.get("event") == "error":
                raise error_from_tree(event["error"])
            if event.get("event") == "result":
                return event
            self._tell(name, event)
        raise Unavailable(f"{name}: the connection ended before the result", hint="the host may continue the change")

    def _failed_models(self, name: str, models: Sequence[str]) -> set[str]:
        """Return those of the models of a step that failed: the probe of the controller, before and after it."""
        if not models:
            return set()
        rows = self._hosts[name].get("/api/v1/status")["models"]
        return {row["name"] for row in rows if row["state"] == "failed"} & set(models)

    def _failure(self, name: str, error: MullamaError) -> HostOutcome:
        message = error.message.removeprefix(f"{name}: ")
        return replace(self._outcomes[name], state="failed", outcome=error.kind.value, message=message, hint=error.hint)

    def _look_for_slow(self, names: Iterable[str]) -> None:
        for name in names:
            silent = self._clock() - self._heard[name]
            if silent >= self._slow:
                self._heard[name] = self._clock()
                self._tell(name, {"event": "slow", "message": f"slow: no progress for {duration(silent)}"})

    def _note(self, name: str, outcome: HostOutcome) -> None:
        with self._lock:
            self._outcomes[name] = outcome
        self._changed()

    def _move(self, **fields: Any) -> None:
        with self._lock:
            self._progress = replace(self._progress, **fields)
        self._changed()

    def _tell(self, name: str, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._observe(name, event)


def _only(leaving: Collection[str], result: Mapping[str, Any]) -> bool:
    """Return True for a result in which no other model than these failed."""
    failed = [name for name, model in (result.get("models") or {}).items() if not model.get("ok", True)]
    return result["outcome"] == "partly_applied" and bool(failed) and set(failed) <= set(leaving)


def _reason(result: Mapping[str, Any]) -> str:
    failed = [
        f"{name}: {model.get('message') or 'failed'}"
        for name, model in (result.get("models") or {}).items()
        if not model.get("ok", True)
    ]
    return "; ".join(failed) or str(result.get("message") or result["outcome"])

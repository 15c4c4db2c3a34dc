"""Fetches the files of the models that are served without files, with growing delay, until they can be served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import MappingProxyType

from mullama.controller.current import CurrentState
from mullama.controller.event_log import EventLog
from mullama.errors import Internal, ModelUnavailable, MullamaError
from mullama.manifest.spec import Model
from mullama.struct import replace

FIRST_DELAY, LAST_DELAY = 1.0, 60.0  # seconds before an attempt, doubled each time


class Retries:
    """Keeps one task for each unavailable model of the snapshot. Belongs to the event loop.

    fetch: fetches and checks the files of a model; raises when they cannot be used. serve: starts a run that serves
    the models whose files are here.
    """

    def __init__(
        self,
        state: CurrentState,
        event_log: EventLog,
        *,
        fetch: Callable[[str], Awaitable[None]],
        serve: Callable[[str], Awaitable[None]],
    ) -> None:
        self._state, self._event_log = state, event_log
        self._fetch, self._serve = fetch, serve
        self._tasks: dict[str, tuple[Model, asyncio.Task[None]]] = {}

    def follow(self) -> None:
        """Begin with the models that are unavailable now, and end with those that are not."""
        snapshot = self._state.value.snapshot
        wanted = {
            name: d for name, d in snapshot.deployments.items() if d.unavailable and name in snapshot.manifest.models
        }
        for name, (model, task) in tuple(self._tasks.items()):
            if name not in wanted or wanted[name].model != model:
                task.cancel()
                del self._tasks[name]
        for name, deployment in wanted.items():
            if name not in self._tasks:
                at_once = deployment.unavailable is not None and deployment.unavailable.pending
                task = asyncio.create_task(self._keep_trying(name, 0.0 if at_once else FIRST_DELAY))
                self._tasks[name] = (deployment.model, task)

    def cancel(self) -> None:
        """End all attempts."""
        for _, task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _keep_trying(self, name: str, delay: float) -> None:
        while True:
            await asyncio.sleep(delay)
            delay = min(LAST_DELAY, max(FIRST_DELAY, 2 * delay))
            try:
                await self._fetch(name)
                # The run ends this task by `follow` when it serves the model.
                await self._serve(name)
            except MullamaError as error:
                self._failed(name, error)
            except Exception as error:  # noqa: BLE001 - a fault in one attempt must not end the attempts
                self._failed(name, Internal(f"{type(error).__name__}: {error}"))

    def _failed(self, name: str, error: MullamaError) -> None:
        """Publish the reason in the snapshot, and in the log when it is another one than before."""
        snapshot = self._state.value.snapshot
        deployment = snapshot.deployments.get(name)
        known = deployment.unavailable if deployment else None
        if deployment is None or known is None or (known.message == error.message and not known.pending):
            return
        unavailable = error if isinstance(error, ModelUnavailable) else ModelUnavailable(error)
        deployments = {**snapshot.deployments, name: replace(deployment, unavailable=unavailable)}
        self._state.update(snapshot=replace(snapshot, deployments=MappingProxyType(deployments)))
        self._event_log.add("fetch-failed", name, str(error), (name,))

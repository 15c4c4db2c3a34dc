"""The states of the files behind the served models: a look for changes on disk, and their record."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from mullama.controller.current import CurrentState
from mullama.plan.observed import KnownFiles
from mullama.plan.projectors import projector_of
from mullama.reconcile.files import Files
from mullama.reconcile.pins import pins_of
from mullama.runtime.pool import Pool
from mullama.store.index import changed
from mullama.struct import replace

LOOK_SECONDS = 2.0
"""The longest wait for a file system that is asked for the state of files."""


class ServedFiles:
    """Compares the files of the served models with the states in which they were described."""

    def __init__(self, state: CurrentState, files: Files, pool: Pool) -> None:
        self._state, self._files, self._pool = state, files, pool
        self._look: asyncio.Future[dict[str, str]] | None = None
        self.changed: Mapping[str, str] = {}
        """The answer of the last look."""

    async def look(self) -> Mapping[str, str]:
        """Return the files that changed on disk since they were described, and keep them for status.

        The values are their states now, "" for one that does not exist.

        A file system that does not answer keeps the last answer, so that no caller waits for it.
        """
        if self._look is None or self._look.done():
            stamps = {p: s for d in self._state.value.snapshot.deployments.values() for p, s in d.stamps.items()}
            self._look = asyncio.ensure_future(asyncio.to_thread(changed, stamps))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                self.changed = await asyncio.shield(self._look)
        return self.changed

    def models_of(self, paths: Collection[str]) -> tuple[str, ...]:
        """Return the models that are served from some of these files."""
        deployments = self._state.value.snapshot.deployments.items()
        return tuple(name for name, deployment in deployments if not deployment.stamps.keys().isdisjoint(paths))

    async def restamp(self, names: Iterable[str]) -> None:
        """Update the states of files that changed on disk and have the same bytes still, as after a copy.

        The caller holds the lock of the reconciler.
        """
        current = self._state.value
        deployments = dict(current.snapshot.deployments)
        lock = await asyncio.to_thread(pins_of, current.manifest, current.origin.file)
        found = await asyncio.to_thread(self._files.known, [current.snapshot.manifest], lock)
        for name in deployments.keys() & set(names):
            old = deployments[name]
            files, *others = (_restamped(was, found) for was in old.described)
            drafter = others.pop(0) if old.drafter else None
            projector = projector_of(old.model, found)
            if projector is None or old.projector is None or projector.digest != old.projector.digest:
                projector = old.projector
            deployments[name] = replace(old, files=files, drafter=drafter, adapters=tuple(others), projector=projector)
            self._pool.adopt(deployments[name])
        self._state.update(snapshot=replace(current.snapshot, deployments=MappingProxyType(deployments)))


def _restamped(was: KnownFiles, found: Mapping[str, KnownFiles]) -> KnownFiles:
    now = found.get(was.source, was)
    same = (now.digest, now.paths) == (was.digest, was.paths)
    return replace(was, stamps=now.stamps) if same else was

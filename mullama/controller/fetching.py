"""Has the files of a change's models here: each is fetched once, whoever wants it, and for nobody when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from mullama.controller.change import Change, PendingChanges, PlannedChange
from mullama.controller.downloads import SharedDownloads
from mullama.manifest.spec import Model
from mullama.manifest.tree import revision
from mullama.plan.observed import KnownFiles
from mullama.reconcile.execute import Effects, Report, fetch
from mullama.reconcile.files import Files


class ModelDownloads:
    """counted: told the bytes that came."""

    def __init__(self, files: Files, waiting: PendingChanges, counted: Callable[[int], None]) -> None:
        self._files, self._waiting, self._counted = files, waiting, counted
        self.fetches = SharedDownloads()

    async def lacking(self, change: Change, draft: PlannedChange, effects: Effects) -> None:
        """Have the files that the draft lacks, unless a newer manifest makes them pointless."""
        change.tell({"event": "phase", "phase": "fetch"})
        work = fetch(draft.desired, draft.lacks, effects, change.tell)
        with self.fetches.wanting(self._key(change, draft, draft.desired.models[name]) for name in draft.lacks):
            self._waiting.accept(change)  # fetches of an older change that this one needs, too, go on
            await self._waiting.wait(change, asyncio.create_task(work))
        change.fetched |= {draft.desired.models[name].from_ for name in draft.lacks}

    async def have(self, change: Change, draft: PlannedChange, model: Model, report: Report, name: str) -> KnownFiles:
        """The files of one model, whole and checked."""

        def begin(tell: Report) -> Coroutine[Any, Any, KnownFiles]:
            pin, offline = draft.lock.get(model.from_), change.options.offline
            return self._files.ensure(model, draft.desired, name, tell, pin=pin, offline=offline, counted=self._counted)

        return await self.fetches.have(self._key(change, draft, model), begin, report)

    def _key(self, change: Change, draft: PlannedChange, model: Model) -> Hashable:
        """All that what is fetched, and how, depends on."""
        pin = draft.lock.get(model.from_)
        sources = revision(draft.desired.sources)
        return (model.from_, model.digest, pin and pin.files, sources, change.options.offline)

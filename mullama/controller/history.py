"""The revisions of one server: what each committed, how it ended, and which one to go back to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mullama.controller.change import Change, PlannedChange
from mullama.errors import NotFound
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.plan.steps import summary
from mullama.reconcile.execute import Result
from mullama.reconcile.overlay import Overlay, beside, split
from mullama.store.records import Records, Revision

_TOLD = ("generation", "revision", "when", "trigger", "by", "origin", "summary", "result")


class History:
    """Over the records on the disk. warn: told what could not be written down."""

    def __init__(self, records: Records, warn: Callable[[str], None]) -> None:
        self._records, self._warn = records, warn

    def commit(self, change: Change, draft: PlannedChange) -> None:
        """Write the revision that this draft makes, and the overlay beside it."""
        plan, origin = draft.plan, draft.origin
        overlay = beside(draft.manifest, draft.overlay)
        self._records.save_overlay(overlay)
        self._records.commit(
            Revision(
                generation=plan.generation,
                revision=plan.desired,
                manifest=block_to_tree(draft.desired),
                when=time.time(),
                trigger=change.options.trigger,
                by=change.options.by,
                origin={"path": origin.path, "profiles": origin.profiles, "digest": origin.digest},
                summary=summary(plan),
                overlay=tuple(overlay),
            )
        )

    def ended(self, result: Result) -> None:
        """Say in the revision how it ended."""
        try:
            last = self._records.last()
            if last is not None and last.generation == result.generation:
                self._records.commit(replace(last, result=result.message))
        except OSError as error:
            self._warn(f"how revision {result.generation} ended could not be recorded: {error}")

    def listed(self) -> list[dict[str, Any]]:
        """The kept ones, newest first, in their published form."""
        return [{key: getattr(g, key) for key in _TOLD} for g in self._records.history()]

    def back_to(self, number: int | None) -> tuple[Manifest, Overlay]:
        """(manifest, overlay) of a revision, None for the one before the last; `NotFound` for one not kept."""
        found = self._records.find(number if number is not None else self._before_last())
        return split(parse_resolved(found.manifest), found.overlay)

    def _before_last(self) -> int:
        kept = self._records.history()
        if len(kept) < 2:
            raise NotFound("there is no earlier revision to go back to")
        return kept[1].generation

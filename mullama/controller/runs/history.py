"""The committed revisions of one server: writing, listing and restoring them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mullama.controller.runs.change import Change, PlannedChange
from mullama.errors import NotFound
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.plan.steps import subjects, summary
from mullama.reconcile.compare_revisions import compare_revisions
from mullama.reconcile.execute import Result
from mullama.reconcile.overlay import Overlay, effective_entries, split
from mullama.runtime.base import Origin
from mullama.store.records import Records, Revision

_PUBLISHED = ("generation", "revision", "when", "trigger", "by", "origin", "summary", "result")


class History:
    """Writes revisions to the records on disk. warn: receives failures to record a result."""

    def __init__(self, records: Records, warn: Callable[[str], None]) -> None:
        self._records, self._warn = records, warn

    def commit(self, change: Change, planned: PlannedChange) -> None:
        """Write the revision that this plan makes, and its overlay; nothing for a revision that is written already."""
        plan, origin = planned.plan, planned.origin
        last = self._records.last()
        if last is not None and (last.generation, last.revision) == (plan.generation, plan.desired):
            same_file = (last.origin.get("path"), tuple(last.origin.get("profiles") or ())) == (
                origin.path, origin.profiles,
            )  # fmt: skip
            if not same_file:
                self._records.commit(last._replace(origin=_tree(origin)))
            return
        overlay = effective_entries(planned.manifest, planned.overlay)
        self._records.save_overlay(overlay)
        self._records.commit(
            Revision(
                generation=plan.generation,
                revision=plan.desired,
                manifest=block_to_tree(planned.desired),
                when=time.time(),
                trigger=change.options.trigger,
                by=change.options.by,
                origin=_tree(origin) | ({"targets": list(plan.targets)} if plan.targets else {}),
                summary={**summary(plan), "subjects": subjects(plan)},
                overlay=tuple(overlay),
            )
        )

    def record_result(self, result: Result) -> None:
        """Write the result of an apply into its revision."""
        try:
            last = self._records.last()
            if last is not None and last.generation == result.generation and last.result != result.message:
                self._records.commit(last._replace(result=result.message))
        except OSError as error:
            self._warn(f"the result of revision {result.generation} could not be recorded: {error}")

    def listed(self) -> list[dict[str, Any]]:
        """Return the kept revisions in their published form, newest first."""
        return [{key: getattr(kept, key) for key in _PUBLISHED} for kept in self._records.history()]

    def compare(self, before: int, after: int) -> dict[str, Any]:
        """Return two kept revisions against each other, as `compare_revisions`. Raises `NotFound`."""
        return compare_revisions(self._records.find(before), self._records.find(after))

    def restore(self, number: int | None) -> tuple[Manifest, Overlay]:
        """Return the manifest and the overlay of a revision; None means the one before the last.

        Raises `NotFound` for a revision that is not kept.
        """
        found = self._records.find(number if number is not None else self._before_last())
        return split(parse_resolved(found.manifest), found.overlay)

    def _before_last(self) -> int:
        kept = self._records.history()
        if len(kept) < 2:
            raise NotFound("there is no earlier revision to go back to")
        return kept[1].generation


def _tree(origin: Origin) -> dict[str, Any]:
    given = {name: value for name in ("commit", "fleet") if (value := getattr(origin, name))}
    return {"path": origin.path, "profiles": origin.profiles, "digest": origin.digest, **given}

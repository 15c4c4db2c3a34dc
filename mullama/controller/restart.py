"""The first change of a server. A changed manifest keeps no server down that served before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change, Line, ProgressQueue
from mullama.manifest.tree import revision
from mullama.reconcile.observe import last_applied
from mullama.reconcile.overlay import split
from mullama.runtime.base import ApplyOptions
from mullama.store.records import Records
from mullama.struct import replace


async def begin(reconciler: Reconciler, records: Records, change: Change) -> AsyncGenerator[Line, None]:
    """Run the first change of a server and yield its progress; the last line is the result.

    If a changed manifest needs a download or cannot be applied, the last revision of the same file is served first.
    The manifest is then applied as a saved file is: in part until its files are here, and again after a failure.
    """
    assert change.desired is not None
    last = await asyncio.to_thread(_last_of, change, records)
    if last is None:
        async for line in reconciler.apply(change):
            yield line
        return
    for attempt in (replace(change, awaits_files=False), last):
        async for line in reconciler.apply(attempt):
            failed = line["event"] == "result" and not reconciler.current.started
            if not failed or attempt is last:
                yield line
        if reconciler.current.started:
            break
    if reconciler.current.started and not reconciler.current.serves(change.desired):
        options = replace(change.options, trigger="watch", by="start")
        async for line in reconciler.apply(replace(change, options=options, progress=ProgressQueue())):
            yield line


def _last_of(change: Change, records: Records) -> Change | None:
    """Return the change that serves the last revision of the same file; None without another revision of this file."""
    last, applied, origin = records.last(), last_applied(records), change.origin
    if last is None or applied is None or origin.path is None:
        return None
    if (last.origin.get("path"), tuple(last.origin.get("profiles") or ())) != (origin.path, origin.profiles):
        return None
    manifest, _ = split(applied.manifest, last.overlay)
    if change.desired is None or revision(manifest) == revision(change.desired):
        return None
    # Without its digest: the watcher compares digests, and reads the file again until it is applied.
    origin = replace(origin, digest="")
    return Change(desired=manifest, origin=origin, options=ApplyOptions(trigger="start"), restored=True)

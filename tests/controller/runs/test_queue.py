"""Runs that wait for downloads, and newer manifests that replace them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullama.controller.runs.change import Change
from mullama.controller.runs.queue import PendingRuns, Run
from mullama.errors import Conflict
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.runtime.base import ApplyOptions

pytestmark = pytest.mark.anyio


def manifest(**models: dict[str, Any]) -> Manifest:
    return parse_resolved({"mullama": "v1", "models": {n: {"from": "/m/a.gguf", **m} for n, m in models.items()}})


def run(number: int, desired: Manifest | None) -> Run:
    change = Change(desired=desired, options=ApplyOptions())
    return Run(change=change, number=number, label=f"run {number}", on_progress=lambda line: None)


async def test_a_newer_manifest_cancels_the_download_of_an_older_one() -> None:
    pending, older = PendingRuns(), run(1, manifest(a={}))
    never = asyncio.create_task(asyncio.sleep(3600))
    waits = asyncio.create_task(pending.wait(older, never))
    await asyncio.sleep(0)
    assert pending.manifests == {older.revision}

    pending.accept(run(2, None))  # an edit of the overlay is no manifest
    pending.accept(run(3, manifest(a={})))  # the same manifest again
    await asyncio.sleep(0)
    assert not waits.done()
    pending.accept(run(4, manifest(b={})))

    with pytest.raises(Conflict, match="a newer manifest \\(run 4\\)"):
        await waits
    assert older.superseded
    assert pending.empty

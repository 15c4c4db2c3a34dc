"""The objects that clients store, each for the API key that made it, by the settings of the live manifest."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from mullama.chat.inventory import Done
from mullama.dialects.stored_objects import (
    DeleteStored,
    FetchStored,
    ListStored,
    StoredObject,
    StoredOperation,
    StoredPage,
    UpdateStored,
)
from mullama.errors import Invalid, NotFound
from mullama.manifest.spec import Moved, StoredObjects
from mullama.manifest.spec.readers import moves_of
from mullama.runtime.base import Caller
from mullama.store.client_objects import ObjectFile, ObjectQuery, ObjectRecord
from mullama.struct import replace

T = TypeVar("T")
_PURGE_SECONDS = 3600.0
_NAMES = {"response": "response", "chat.completion": "chat completion"}


class ClientStore:
    """Keeps the objects in a file, whose reads and writes run in a thread of its own.

    moved: the renames of the manifest. The objects of a renamed key are those of its new name.
    """

    def __init__(
        self,
        file: ObjectFile,
        settings: Callable[[], StoredObjects],
        clock: Callable[[], float] = time.time,
        moved: Callable[[], tuple[Moved, ...]] = tuple,
    ) -> None:
        self._file, self._settings, self._clock = file, settings, clock
        self._moved, self._given = moved, tuple[Moved, ...]()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="objects")

    async def put(self, stored: StoredObject, caller: Caller) -> None:
        """Store or replace an object, unless the manifest keeps none."""
        settings = self._settings()
        if settings.keep == 0:
            return
        record = ObjectRecord(
            kind=stored.kind, id=stored.id, created=self._clock(), model=stored.model, metadata=stored.metadata,
            data=await self._run(lambda: _to_json(stored)),
        )  # fmt: skip
        await self._run(lambda: self._file.put(_owner(caller), record, most=settings.size))

    async def answer(self, operation: StoredOperation, caller: Caller) -> StoredObject | StoredPage | Done:
        """Return the result of an operation on stored objects."""
        match operation:
            case FetchStored():
                return await self._get(operation.kind, operation.id, caller)
            case DeleteStored():
                await self._get(operation.kind, operation.id, caller)
                await self._run(lambda: self._file.delete(_owner(caller), operation.kind, operation.id))
                return Done()
            case UpdateStored():
                return await self._update(operation, caller)
            case ListStored():
                return await self._list(operation, caller)

    async def _get(self, kind: str, id: str, caller: Caller) -> StoredObject:
        since = self._since()
        found = await self._run(lambda: self._file.get(_owner(caller), kind, id, since=since))
        if found is None:
            raise _missing(kind, id)
        return _from_record(found)

    async def _update(self, operation: UpdateStored, caller: Caller) -> StoredObject:
        found = await self._get(operation.kind, operation.id, caller)
        body = {**found.body, "metadata": dict(operation.metadata)}
        changed = replace(found, body=body, metadata=operation.metadata)
        await self.put(changed, caller)
        return changed

    async def _list(self, operation: ListStored, caller: Caller) -> StoredPage:
        query = ObjectQuery(
            kind=operation.kind, limit=operation.limit, after=operation.after, newest_first=operation.newest_first,
            model=operation.model, metadata=operation.metadata,
        )  # fmt: skip
        since = self._since()
        found = await self._run(lambda: self._file.page(_owner(caller), query, since=since))
        if found is None:
            raise Invalid(f"after: there is no {_NAMES[operation.kind]} {str(operation.after)[:80]!r}", field="after")
        records, more = found
        return StoredPage(objects=tuple(map(_from_record, records)), more=more)

    async def keep_tidy(self) -> None:
        """Delete the objects whose time is over, now and every hour; endless."""
        while True:
            await self._run(partial(self._file.purge, since=self._since()))
            await asyncio.sleep(_PURGE_SECONDS)

    def close(self) -> None:
        self._thread.shutdown()
        self._file.close()

    def _since(self) -> float:
        return self._clock() - self._settings().keep

    async def _run(self, work: Callable[[], T]) -> T:
        loop, moved = asyncio.get_running_loop(), self._moved()
        if moved != self._given:
            await loop.run_in_executor(self._thread, self._file.give, moves_of(moved, "key"))
            self._given = moved
        return await loop.run_in_executor(self._thread, work)


def _owner(caller: Caller) -> str:
    return caller.key or ""


def _missing(kind: str, id: str) -> NotFound:
    return NotFound(
        f"{_NAMES[kind]} {id[:80]!r} not found",
        hint="it is kept for the key that made it, within the limits of server.stored in the manifest",
    )


def _to_json(stored: StoredObject) -> str:
    tree: dict[str, Any] = {"body": stored.body, "items": stored.items, "events": stored.events}
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False, default=dict)


def _from_record(record: ObjectRecord) -> StoredObject:
    tree = json.loads(record.data)
    events = tree["events"]
    kind: Any = record.kind
    return StoredObject(
        kind=kind, id=record.id, body=tree["body"], items=tuple(tree["items"]), model=record.model,
        metadata=record.metadata, events=None if events is None else tuple(events),
    )  # fmt: skip

"""Stored objects by the live manifest: their owners, their lifetime, and what a restart keeps."""

from __future__ import annotations

import pytest

from mullama.dialects.stored_objects import DeleteStored, FetchStored, ListStored, StoredObject, UpdateStored
from mullama.errors import Invalid, NotFound
from mullama.runtime.serving.client_store import ClientStore
from mullama.store.client_objects import ObjectFile
from mullama.struct import replace
from tests.runtime.runtime_fixture import CALLER, LocalServer

pytestmark = pytest.mark.anyio

ANN, BEN = (replace(CALLER, key=name) for name in ("ann", "ben"))


def completion(id: str, **metadata: str) -> StoredObject:
    body = {"id": id, "metadata": metadata}
    return StoredObject(kind="chat.completion", id=id, body=body, items=({"role": "user"},), metadata=metadata)


async def test_an_object_is_private_to_the_key_that_made_it(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    await server.service.store(completion("c1", topic="x"), ANN)
    fetch = FetchStored(kind="chat.completion", id="c1")
    assert await server.service.answer(fetch, ANN) == completion("c1", topic="x")
    for operation in (
        fetch, DeleteStored(kind="chat.completion", id="c1"), FetchStored(kind="response", id="c1"),
        UpdateStored(kind="chat.completion", id="c1", metadata={}),
    ):  # fmt: skip
        with pytest.raises(NotFound, match="'c1' not found"):
            await server.service.answer(operation, BEN)
    listed = await server.service.answer(ListStored(kind="chat.completion"), BEN)
    assert listed.objects == ()  # type: ignore[union-attr]
    with pytest.raises(Invalid, match="after: there is no chat completion 'c1'"):
        await server.service.answer(ListStored(kind="chat.completion", after="c1"), BEN)
    await server.service.answer(DeleteStored(kind="chat.completion", id="c1"), ANN)
    with pytest.raises(NotFound):
        await server.service.answer(fetch, ANN)


async def test_metadata_is_replaced_in_the_object_too(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    await server.service.store(completion("c1", topic="x"), ANN)
    changed = await server.service.answer(UpdateStored(kind="chat.completion", id="c1", metadata={"b": "c"}), ANN)
    assert changed == completion("c1", b="c")
    again = ClientStore(ObjectFile(server.records.objects_path), lambda: server.snapshot.manifest.server.stored)
    found = await again.answer(ListStored(kind="chat.completion", metadata={"b": "c"}), ANN)
    assert found.objects == ()  # type: ignore[union-attr] # the clock of the test is long ago
    later = ClientStore(
        ObjectFile(server.records.objects_path), lambda: server.snapshot.manifest.server.stored, lambda: server.now
    )
    kept = await later.answer(ListStored(kind="chat.completion", metadata={"b": "c"}), ANN)
    assert kept.objects == (completion("c1", b="c"),)  # type: ignore[union-attr]
    again.close()
    later.close()


@pytest.mark.parametrize(("keep", "after", "there"), [("30d", 9e4, True), ("1h", 9e4, False), ("0s", 0.0, False)])
async def test_the_manifest_says_how_long_an_object_is_kept(
    keep: str, after: float, there: bool, server: LocalServer
) -> None:
    settings = {"listen": ["127.0.0.1:0"], "stored": {"keep": keep}}
    await server.apply({"a": server.script()}, server=settings)
    await server.service.store(completion("c1"), ANN)
    server.now += after
    listed = await server.service.answer(ListStored(kind="chat.completion"), ANN)
    assert len(listed.objects) == there  # type: ignore[union-attr]


async def test_a_shorter_time_applies_to_objects_that_are_stored(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    await server.service.store(completion("c1"), ANN)
    server.now += 7200
    await server.apply({"a": server.script()}, server={"listen": ["127.0.0.1:0"], "stored": {"keep": "1h"}})
    with pytest.raises(NotFound, match="not found") as caught:
        await server.service.answer(FetchStored(kind="chat.completion", id="c1"), ANN)
    assert "server.stored" in caught.value.hint


async def test_the_objects_of_a_renamed_key_are_those_of_its_new_name(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    await server.service.store(completion("c1"), ANN)
    fetch = FetchStored(kind="chat.completion", id="c1")

    assert ANN.key is not None
    assert BEN.key is not None
    await server.apply({"a": server.script()}, moved=[{"kind": "key", "from": ANN.key, "to": BEN.key}])

    assert await server.service.answer(fetch, BEN) == completion("c1")
    with pytest.raises(NotFound):
        await server.service.answer(fetch, ANN)

"""Addresses and API keys of the served manifest, with real workers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio


async def test_a_missing_secret_fails_before_anything_is_committed(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    keys = {"ci": {"secret": {"from_env": "NOT_SET"}}}

    done = await server.apply({"a": server.script("b")}, auth={"keys": keys})

    assert done["outcome"] == "not_found"
    assert "NOT_SET" in done["message"]
    last = server.records.last()
    assert last is not None
    assert last.generation == 1
    assert server.condition("Synced")["reason"] == "InvalidManifest"
    assert await server.ask("a", "say yes") == "yes"


async def test_keys_are_in_force_before_an_address_opens(server: LocalServer) -> None:
    """Else everybody could administer the server while its models are loaded."""
    server.env["KEY"] = "s3cret"
    await server.apply({"a": server.script()}, auth={"keys": {"k": {"secret": {"from_env": "KEY"}}}})

    assert server.addresses.keys_when_opened == [1]


async def test_keys_without_any_secret_do_not_open_the_server_to_everybody(
    server: LocalServer,
) -> None:
    key = {"secret": {"from_env": "NOT_SET", "optional": True}}

    done = await server.apply({"a": server.script()}, auth={"keys": {"k": key}})

    assert done["outcome"] == "not_found"
    assert "open to everyone" in done["message"]
    assert server.addresses.open == ()


async def test_a_new_secret_behind_the_same_reference_is_taken_by_the_next_apply(server: LocalServer) -> None:
    server.env["KEY"] = "old"
    blocks: dict[str, Any] = {"auth": {"keys": {"k": {"secret": {"from_env": "KEY"}}}}}
    await server.apply({"a": server.script()}, **blocks)
    before = server.service.access().keys[0].sha256

    server.env["KEY"] = "new"
    done = await server.apply({"a": server.script()}, **blocks)

    assert done["outcome"] == "applied"
    assert server.service.access().keys[0].sha256 != before
    assert server.snapshot.generation == 1


async def test_an_address_that_is_taken_ends_the_run_with_nothing_committed(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    server.addresses.taken = {"127.0.0.1:9"}

    done = await server.apply({"a": server.script("b")}, server={"listen": ["127.0.0.1:9"]})

    assert done["outcome"] == "conflict"
    assert server.snapshot.generation == 1
    assert server.addresses.open == ("127.0.0.1:0",)
    assert await server.ask("a", "say yes") == "yes"


async def test_listeners_and_keys_are_restored_when_the_revision_cannot_be_written(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.env["KEY"] = "x"
    await server.apply({"a": server.script()})

    def full(generation: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.records, "commit", full)
    done = await server.apply(
        {"a": server.script()},
        server={"listen": ["127.0.0.1:0", "127.0.0.1:8"]},
        auth={"keys": {"k": {"secret": {"from_env": "KEY"}}}},
    )

    assert done["outcome"] == "unavailable"
    assert "No space left" in done["message"]
    assert server.addresses.open == ("127.0.0.1:0",)
    assert server.service.access().keys == ()

"""The hub for the operator of a server: a search, and a repository with the files that fit the machine."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from mullama.errors import MullamaError, NotFound, Unavailable, Unsupported
from mullama.plan.observed import Machine
from mullama.runtime.base import ApplyOptions
from mullama.server.operator_api.response_schemas import HUB_REPOSITORY, HUB_SEARCH
from mullama.sources.settings import Requester, requester
from tests import ggufs
from tests.runtime.runtime_fixture import LocalServer
from tests.sources.conftest import hub as hub
from tests.stub_hub import Redirect, Status, StubHub

pytestmark = pytest.mark.anyio

WEIGHTS = ggufs.model().bytes()
PAGE = Requester(public_only=True)
"""The author of a request over TCP, as the page sends it."""


@pytest.fixture
async def browsed(server: LocalServer, hub: StubHub) -> LocalServer:
    """A server whose manifest names the hub, on a machine with room for the smaller file alone."""
    hub.repo("org/small-GGUF", {"s-Q4_K_M.gguf": WEIGHTS, "s-Q8_0.gguf": WEIGHTS + bytes(2**21), "README.md": b"x"})
    server.machine = Machine(ram_total=2**22, ram_available=len(WEIGHTS) + 2**21, cores=2)
    await server.apply({}, ApplyOptions(allow_empty=True), sources={"hf": {"endpoint": hub.url}})
    requester.set(PAGE)
    return server


async def test_a_search_lists_repositories(browsed: LocalServer) -> None:
    found = await browsed.operator.search_hub("SMALL", limit=5, every=False)
    assert [one["repository"] for one in found] == ["org/small-GGUF"]
    Draft202012Validator(HUB_SEARCH).validate({"format": "mullama.search/1", "results": found})


async def test_the_files_of_a_repository_are_rated_for_the_machine(browsed: LocalServer) -> None:
    tree = await browsed.operator.hub_advice("org/small-GGUF", context=64, profile="balanced")
    Draft202012Validator(HUB_REPOSITORY).validate(tree)
    assert {row["quant"]: row["status"] for row in tree["quants"]} == {"Q8_0": "too large", "Q4_K_M": "recommended"}
    assert tree["recommended"] == "hf:org/small-GGUF:Q4_K_M"
    assert [file["name"] for file in tree["files"]] == ["s-Q4_K_M.gguf", "s-Q8_0.gguf"]
    [best] = [row for row in tree["quants"] if row["status"] == "recommended"]
    assert (best["size_bytes"], best["source"]) == (len(WEIGHTS), "hf:org/small-GGUF:Q4_K_M")
    assert best["memory_bytes"] > best["size_bytes"]


async def test_a_repository_that_cannot_be_rated_has_its_files_and_the_reason(
    browsed: LocalServer, hub: StubHub
) -> None:
    hub.repo("org/odd", {"odd.gguf": b"no weights"})
    tree = await browsed.operator.hub_advice("org/odd", context=64, profile="balanced")
    Draft202012Validator(HUB_REPOSITORY).validate(tree)
    assert (tree["files"][0]["name"], tree["quants"]) == ("odd.gguf", [])
    assert tree["error"]["message"]


async def test_what_is_no_repository_is_refused(browsed: LocalServer) -> None:
    with pytest.raises(NotFound, match="org/none"):
        await browsed.operator.hub_advice("org/none", context=64, profile="balanced")
    with pytest.raises(Unsupported, match="not a repository"):
        await browsed.operator.hub_advice("https://example.org/m.gguf", context=64, profile="balanced")


async def test_without_a_network_the_reason_is_given_and_nothing_is_asked(browsed: LocalServer, hub: StubHub) -> None:
    asked = len(hub.requests)
    browsed.env["HF_HUB_OFFLINE"] = "1"
    for work in (
        browsed.operator.search_hub("small", limit=5, every=False),
        browsed.operator.hub_advice("org/small-GGUF", context=64, profile="balanced"),
    ):
        with pytest.raises(Unavailable, match="HF_HUB_OFFLINE"):
            await work
    assert len(hub.requests) == asked


async def test_a_hub_that_refuses_is_named(browsed: LocalServer, hub: StubHub) -> None:
    hub.script("/api/models", *[Status(500)] * 20)
    with pytest.raises(Unavailable, match="500"):
        await browsed.operator.search_hub("small", limit=5, every=False)


async def test_a_redirect_into_the_network_is_not_followed(browsed: LocalServer, hub: StubHub) -> None:
    with StubHub() as inside:
        hub.script("/api/models", Redirect(f"{inside.url}/api/models"))
        with pytest.raises(MullamaError):
            await browsed.operator.search_hub("small", limit=5, every=False)
        assert inside.requests == []

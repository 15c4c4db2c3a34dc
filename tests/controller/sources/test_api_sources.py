"""Sources that clients of the API name: nothing of this machine or its network, unless the manifest declares it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mullama.chat.inventory import CreateModel, PullModel
from mullama.controller.runs.downloads import author_of
from mullama.errors import Denied, MullamaError, Refused
from mullama.manifest.spec import Manifest
from mullama.reconcile.files import Files
from mullama.runtime.base import ApplyOptions
from mullama.server.app import _requester
from mullama.sources.http_client import open_web
from mullama.sources.settings import HubSettings, Requester, requester
from tests.runtime.runtime_fixture import LocalServer
from tests.sources.conftest import hub as hub
from tests.stub_hub import StubHub

pytestmark = pytest.mark.anyio

CLIENT = Requester(public_only=True)


async def _end(statuses: Any) -> None:
    async for _ in statuses:
        pass


async def _pull(server: LocalServer, source: str) -> None:
    requester.set(CLIENT)
    await _end(server.commands.pull(PullModel(source=source, name="x")))


SPELLINGS = [
    "127.0.0.1", "localhost", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "[::1]", "0177.0.0.1",
    "[::]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "10.0.0.1", "[fe80::1]", "224.0.0.1",
]  # fmt: skip


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record the connections that are opened."""
    import httpcore2

    opened: list[tuple[str, int]] = []
    real = httpcore2.SyncBackend.connect_tcp

    def connect(self: Any, host: str, port: int, *arguments: Any, **more: Any) -> Any:
        opened.append((host, port))
        return real(self, host, port, *arguments, **more)

    monkeypatch.setattr(httpcore2.SyncBackend, "connect_tcp", connect)
    return opened


async def test_a_client_reaches_no_host_inside_the_network(
    server: LocalServer, hub: StubHub, connections: list[tuple[str, int]]
) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})
    port = hub.host.rpartition(":")[2]
    addresses = [f"{scheme}://{host}:{port}/x.gguf" for scheme in ("https", "http") for host in SPELLINGS]
    for source in (*addresses, f"ollama:{hub.host}/library/m", f"ollama:localhost:{port}/library/m"):
        with pytest.raises(MullamaError):
            await _pull(server, source)
    assert connections == []
    assert list(server.snapshot.deployments) == ["a"]


async def test_a_client_learns_nothing_about_files_of_this_machine(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})
    answers = set()
    for source in ("/etc/shadow", "/etc/nothere", "./a.gguf", "~/x.gguf", "../x.script.json", "x.gguf"):
        for request in (
            server.commands.pull(PullModel(source=source, name="x")),
            server.commands.create(CreateModel(name="x", base=source)),
            server.commands.create(CreateModel(name="x", base="a", declared={"adapters": [{"from": source}]})),
        ):
            requester.set(CLIENT)
            with pytest.raises(Denied, match="may not name a file") as caught:
                await _end(request)
            answers.add(str(caught.value))
    assert len(answers) == 1


async def test_a_source_that_the_manifest_declares_is_allowed_and_so_is_the_operator(server: LocalServer) -> None:
    source = server.script()
    await server.apply({"a": {"from": source, "residency": {"load": "on_demand"}}})
    server.script("b")

    await _pull(server, str(server.home / "a.script.json"))
    await _end(server.commands.create(CreateModel(name="y", base="a")))
    requester.set(Requester())
    await _end(server.commands.pull(PullModel(source=str(server.home / "b.script.json"), name="z")))

    assert {"x", "y", "z"} <= server.snapshot.deployments.keys()


async def test_the_hub_that_the_operator_configured_may_be_inside_the_network(hub: StubHub) -> None:
    """Its redirects to another inner host are refused still."""
    settings = Files.here({"HOME": "/none"}).settings(
        Manifest.model_validate({"mullama": "v1", "sources": {"hf": {"endpoint": hub.url}}}), CLIENT
    )
    with open_web(settings) as web:
        assert web.ask(f"{hub.url}/api/models/org/m", {})[0].status == 200
        with pytest.raises(Refused), web.get(hub.url.replace("127.0.0.1", "localhost") + "/x"):
            pass


def test_the_settings_of_the_operators_shell_count_where_the_manifest_has_none() -> None:
    author = Requester(hub=HubSettings(endpoint="http://127.0.0.1:9", token="t", token_from="HF_TOKEN of the command"))
    files = Files.here({"HOME": "/none"})
    own = files.settings(Manifest.model_validate({"mullama": "v1"}), author).hub
    assert (own.endpoint, own.token, own.token_from) == ("http://127.0.0.1:9", "t", "HF_TOKEN of the command")
    declared = Manifest.model_validate({"mullama": "v1", "sources": {"hf": {"endpoint": "https://hub.example.org"}}})
    assert files.settings(declared, author).hub.endpoint == "https://hub.example.org"


@pytest.mark.parametrize(
    ("overlay", "author", "trigger", "fenced"),
    [
        ({}, CLIENT, "apply", False),
        ({"m": {}}, CLIENT, "api", True),
        ({"m": {}}, Requester(), "api", False),
        ({"m": {}}, Requester(), "start", True),
        ({"m": {}}, Requester(), "retry", True),
        ({}, Requester(), "start", False),
    ],
)
async def test_the_rights_of_a_download_are_those_of_its_author(
    overlay: dict[str, Any], author: Requester, trigger: Any, fenced: bool
) -> None:
    requester.set(author)
    assert author_of("m", overlay, ApplyOptions(trigger=trigger)).public_only is fenced


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tcp", CLIENT),
        ("unix", CLIENT),
        ("control", Requester(hub=HubSettings(endpoint="https://e", token="t", token_from="HF_TOKEN of the command"))),
    ],
)
def test_only_the_control_socket_brings_the_settings_of_a_shell(kind: Any, expected: Requester) -> None:
    headers = {"x-mullama-hf-token": "t", "x-mullama-hf-endpoint": "https://e"}
    exchange = SimpleNamespace(listener=SimpleNamespace(kind=kind), headers=headers)
    assert _requester(exchange) == expected  # type: ignore[arg-type]

"""The gateway over replicas without Ray: dialects, keys, routes, lost replicas, full queues, cancelled requests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mullama import __version__
from mullama.chat.types import ChatRequest, EmbedRequest, Started, TextDelta, text_message
from mullama.errors import (
    Busy,
    Conflict,
    ContextOverflow,
    EngineFailed,
    Internal,
    ManifestError,
    ModelUnavailable,
    MullamaError,
    NotFound,
    TimedOut,
)
from mullama.export.ray_serve import GATEWAYS, RayInput, application_name, model_application, snapshot_tree
from mullama.manifest.tree import parse_resolved
from mullama.runtime.base import Caller
from mullama.targets.ray.gateway import Gateway, snapshot_of
from mullama.targets.ray.probe import probe, require_version
from mullama.targets.ray.rate_share import shared_rates
from mullama.targets.ray.replica import ModelReplica
from mullama.targets.ray.wire import RemoteError, ReplicaLost, message, packed, unpacked, value_of
from tests import ggufs
from tests.stub_hub import Hold, StubHub

pytestmark = pytest.mark.anyio
SECRET = "s"
KEY = {"name": "team", "sha256": hashlib.sha256(SECRET.encode()).hexdigest(), "models": ["a", "r"],
       "roles": ["infer", "read"], "priority": 0}  # fmt: skip


class Cluster:
    """Replicas in this process, by their applications. `failures` are raised by the next calls, one each."""

    def __init__(self, home: Path) -> None:
        self.home, self.replicas = home, dict[str, ModelReplica]()
        self.failures: list[MullamaError] = []
        self.affinities: list[bytes] = []
        self.closed = 0
        self.kept: frozenset[str] = frozenset()
        self.full = asyncio.Event()
        """Not set: no replica takes a request; the wait for a place has begun where `waits` is set."""
        self.waits = asyncio.Event()

    def given(self, **rest: Any) -> RayInput:
        models = {}
        for name in ("a", "b"):
            path = self.home / f"{name}.script.json"
            path.write_text(json.dumps({"name": name, "rules": [{"when": "who", "say": f"I am {name}"}]}))
            models[name] = {"from": str(path), "context": {"threads": 1}}
        tree = {
            "mullama": "v1", "models": models, "auth": {"keys": {"team": {"secret": {"from_env": "K"}}}},
            "routes": {"default": "a", "r": {"to": [{"model": "b"}], "fallback": ["a"], "on_error": ["overloaded"]}},
            "server": {"listen": ["127.0.0.1:1"]},
        }  # fmt: skip
        return RayInput(manifest=parse_resolved({**tree, **rest}), version="1", keys=[KEY])

    async def start(self, given: RayInput) -> None:
        for name in given.manifest.models:
            env = {"HOME": str(self.home), "MULLAMA_STATE_DIR": str(self.home / "s")}
            replica = ModelReplica(f"{name}-1", env)
            await replica.configure(model_application(given, name)["deployments"][0]["user_config"])
            self.replicas[application_name(given, name)] = replica

    async def stop(self) -> None:
        for replica in self.replicas.values():
            await replica.close()

    async def stream(
        self, application: str, request: Any, caller: Caller, affinity: bytes
    ) -> AsyncGenerator[Any, None]:
        self.affinities.append(affinity)
        if self.failures:
            raise self.failures.pop(0)
        await self._place(application)
        try:
            async for events in self.replicas[application].stream(request, caller):
                yield value_of(message(events))
        finally:
            self.closed += 1

    async def _place(self, application: str) -> None:
        if application not in self.replicas:  # an application whose replicas take no more requests
            self.waits.set()
            await self.full.wait()

    async def keep(self, applications: frozenset[str]) -> None:
        self.kept = applications

    async def ask(self, application: str, operation: Any, caller: Caller, affinity: bytes) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        await self._place(application)
        return await self.replicas[application].ask(operation, caller)


@pytest.fixture(scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("replicas"))
    await made.start(made.given())
    yield made
    await made.stop()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    started.failures, started.affinities, started.closed = [], [], 0
    started.full, started.waits = asyncio.Event(), asyncio.Event()
    return started


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[httpx.AsyncClient]:
    gateway = Gateway(cluster, {})
    await gateway.configure(snapshot_tree(cluster.given()))
    headers = {"authorization": f"Bearer {SECRET}"}
    transport = httpx.ASGITransport(gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=headers) as made:
        yield made


def chat(model: str = "a", text: str = "who", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def ask(client: httpx.AsyncClient, **more: Any) -> Any:
    return (await client.post("/v1/chat/completions", json=chat(**more))).json()


async def test_every_dialect_is_answered_by_a_replica(client: httpx.AsyncClient) -> None:
    assert (await ask(client))["choices"][0]["message"]["content"] == "I am a"
    found = await client.post("/v1/messages", json={**chat(), "max_tokens": 9})
    assert found.json()["content"][0]["text"] == "I am a"
    lines = (await client.post("/api/chat", json=chat())).text.splitlines()
    assert "".join(json.loads(line)["message"]["content"] for line in lines) == "I am a"
    events = (await client.post("/v1/chat/completions", json=chat(stream=True))).text
    assert events.rstrip().endswith("data: [DONE]")
    vectors = (await client.post("/v1/embeddings", json={"model": "a", "input": ["x", "y"]})).json()
    assert [len(row["embedding"]) for row in vectors["data"]] == [64, 64]
    tokens = (await client.post("/tokenize", json={"content": "x y"})).json()
    assert tokens["tokens"]


async def test_a_server_of_tools_is_refused_in_the_dialect(client: httpx.AsyncClient) -> None:
    tools = [{"type": "mcp", "server_label": "docs"}]
    for stream in (True, False):
        body = {"model": "a", "input": "who", "tools": tools, "stream": stream}
        found = await client.post("/v1/responses", json=body)
        assert found.status_code == 400
        assert found.json()["error"]["param"] == "tools[0]"


async def test_a_search_that_agents_ask_for_everywhere_is_left_out(client: httpx.AsyncClient) -> None:
    body = {"model": "a", "input": "who", "tools": [{"type": "web_search"}]}
    assert (await client.post("/v1/responses", json=body)).status_code == 200


async def test_keys_names_and_routes_are_those_of_the_manifest(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()["data"]
    assert {one["id"] for one in listed} == {"a", "r"}, "the key may not use b by its own name"
    assert (await client.get("/v1/models", headers={"authorization": "Bearer x"})).status_code == 401
    assert (await client.post("/v1/chat/completions", json=chat("b"))).status_code == 403
    assert (await client.post("/v1/chat/completions", json=chat("none"))).status_code == 404
    assert (await ask(client, model="r"))["choices"][0]["message"]["content"] == "I am b"
    assert (await client.post("/api/pull", json={"model": "x", "stream": False})).status_code in (400, 403, 501)
    stored = await client.post("/v1/responses", json={"model": "a", "input": "who", "store": True})
    assert stored.status_code == 200, "the answer is given, with a warning that it is not kept"
    assert (await client.get("/readyz")).json() == {"ready": True}


async def test_a_default_model_of_another_dialect_is_named_as_such(cluster: Cluster) -> None:
    gateway = Gateway(cluster, {})
    models = {"a": {"from": "builtin:tiny", "dialects": ["ollama"]}}
    await gateway.configure(snapshot_tree(cluster.given(models=models, routes={"default": "a"})))
    assert gateway.service.default_model(Caller(dialect="ollama", request_id="1")) == "a"
    with pytest.raises(NotFound, match="not served in the openai dialect"):
        gateway.service.default_model(Caller(dialect="openai", request_id="1"))


async def test_a_lost_replica_is_followed_by_another_before_the_first_text(
    cluster: Cluster, client: httpx.AsyncClient
) -> None:
    cluster.failures = [ReplicaLost("gone"), EngineFailed("dead")]
    assert "I am a" in json.dumps(await ask(client))
    cluster.failures = [EngineFailed("dead")] * 2
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 503, "each replica tried it twice"
    assert cluster.failures == []
    cluster.failures = [ReplicaLost("gone")]
    text = (await client.post("/v1/chat/completions", json=chat(stream=True))).text
    assert text.rstrip().endswith("data: [DONE]")
    for path, body in (("/v1/chat/completions", chat()), ("/tokenize", {"content": "x"})):
        cluster.failures = [ReplicaLost("gone")] * 2
        assert (await client.post(path, json=body)).status_code == 200
        cluster.failures = [ReplicaLost("gone")] * 3
        assert (await client.post(path, json=body)).status_code == 503
        assert cluster.failures == []


async def test_a_full_queue_is_429_in_the_dialect_and_a_route_falls_back(
    cluster: Cluster, client: httpx.AsyncClient
) -> None:
    for path, status in (("/v1/chat/completions", 429), ("/v1/messages", 529), ("/api/chat", 503)):
        cluster.failures = [Busy("the queue is full", retry_after=2.0)]
        found = await client.post(path, json={**chat(), "max_tokens": 9})
        assert (path, found.status_code, found.headers["retry-after"]) == (path, status, "2")
    cluster.failures = [Busy("full")]
    assert (await ask(client, model="r"))["choices"][0]["message"]["content"] == "I am a"


@pytest.mark.parametrize("limit", ["4/h", "5/h"])
async def test_all_gateways_together_accept_no_more_than_the_limit(cluster: Cluster, limit: str) -> None:
    limits = {"keys": {"team": {"secret": {"from_env": "K"}, "rate": {"requests": limit}}}}
    tree = snapshot_tree(cluster.given(auth=limits))
    accepted = 0
    for _ in range(GATEWAYS):
        gateway = Gateway(cluster, {})
        await gateway.configure({**tree, "applications": snapshot_tree(cluster.given())["applications"]})
        transport = httpx.ASGITransport(gateway)
        headers = {"authorization": f"Bearer {SECRET}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=headers) as client:
            found = [await client.post("/v1/chat/completions", json=chat()) for _ in range(4)]
        accepted += sum(answer.status_code == 200 for answer in found)
        assert found[-1].status_code == 429
    assert accepted == 4


def test_a_share_of_a_limit_is_at_least_one() -> None:
    tree = {
        "mullama": "v1",
        "auth": {"keys": {"k": {"secret": {"from_env": "K"}, "quota": {"tokens": "5k/d"}}}},
        "models": {"a": {"from": "builtin:tiny", "limits": {"rate": {"requests": "1/m"}}}},
    }
    found = shared_rates(parse_resolved(tree), 2)
    key, model = found.auth.keys["k"], found.models["a"]
    assert key.quota is not None
    assert model.limits.rate is not None
    assert (key.rate, key.quota.tokens, model.limits.rate.requests) == (None, "2500/d", "1/m")


async def test_requests_of_one_conversation_have_one_key(cluster: Cluster, client: httpx.AsyncClient) -> None:
    first = chat(text="who is it")
    again = {**first, "messages": [*first["messages"], {"role": "assistant", "content": "I"},
                                   {"role": "user", "content": "more"}]}  # fmt: skip
    for body in (first, again, chat(text="who else")):
        await client.post("/v1/chat/completions", json=body)
    one, two, other = cluster.affinities
    assert one == two != other


async def test_a_client_that_leaves_cancels_the_request_in_the_replica(cluster: Cluster) -> None:
    gateway = Gateway(cluster, {})
    await gateway.configure(snapshot_tree(cluster.given()))
    caller = Caller(dialect="openai", request_id="1")
    request = ChatRequest(model="a", messages=(text_message("user", "slow 50ms 1000 tokens"),))
    events = gateway.service.events(request, caller)
    async with asyncio.timeout(20):
        while not any(isinstance(event, TextDelta) for event in await anext(events)):
            pass
        await events.aclose()
    assert cluster.closed == 1
    counts = gateway.metrics.of("a")
    assert counts.requests == {"cancelled": 1}
    assert counts.completion_tokens > 0, "the tokens that were generated count for the limits"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/messages/count_tokens"])
async def test_a_request_that_waits_at_a_switch_is_answered_by_the_new_application(cluster: Cluster, path: str) -> None:
    """Serve leaves it in the queue of the old application, whose replicas take no requests any more."""
    gateway = Gateway(cluster, {})
    new = snapshot_tree(cluster.given())
    await gateway.configure({**new, "applications": {**new["applications"], "a": "m-a-old"}})
    transport, headers = httpx.ASGITransport(gateway), {"authorization": f"Bearer {SECRET}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=headers) as client:
        asking = asyncio.create_task(client.post(path, json={**chat(), "input": "x", "max_tokens": 9}))
        async with asyncio.timeout(20):
            await cluster.waits.wait()
            await gateway.configure({**new, "generation": 2})
            assert (await asking).status_code == 200
    assert cluster.kept == frozenset(new["applications"].values())


async def test_a_switch_at_the_moment_when_a_wait_ends_is_no_defect(cluster: Cluster) -> None:
    gateway = Gateway(cluster, {})
    new = snapshot_tree(cluster.given())
    old = json.loads(json.dumps({**new, "applications": {"a": "m-a-old"}}))
    old["manifest"]["models"]["a"]["limits"]["timeout"] = 0.01
    await gateway.configure(old)
    caller = Caller(dialect="openai", request_id="1")
    request = ChatRequest(model="a", messages=(text_message("user", "who"),))
    asking = asyncio.create_task(gateway.service.answer(request, caller))
    await cluster.waits.wait()
    while not asking.cancelling():  # noqa: ASYNC110 - the time limit has cancelled the wait, which has not seen it yet
        await asyncio.sleep(0)
    gateway._value = snapshot_of(new, {})
    gateway.service.switched()
    assert "I am a" in repr(await asking), "the model has another application, which is asked"


async def test_a_wait_for_a_replica_ends_after_the_timeout_of_the_model(cluster: Cluster) -> None:
    gateway = Gateway(cluster, {})
    tree = snapshot_tree(cluster.given())
    tree["manifest"]["models"]["a"]["limits"]["timeout"] = 0.01
    await gateway.configure({**tree, "applications": {"a": "m-a-none"}})
    caller = Caller(dialect="openai", request_id="1")
    for operation in (
        ChatRequest(model="a", messages=(text_message("user", "x"),)),
        EmbedRequest(model="a", inputs=("x",)),
    ):
        with pytest.raises(TimedOut, match="no replica of 'a'"):
            await gateway.service.answer(operation, caller)


class Broken:
    """Replicas whose asks wait, and whose streams have a defect."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def stream(self, *_: Any) -> AsyncGenerator[Any, None]:
        yield []
        yield [Started(prompt_tokens=1)]
        raise RuntimeError("a defect")

    async def keep(self, applications: frozenset[str]) -> None:
        pass

    async def ask(self, *_: Any) -> Any:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_defect_is_an_error_and_a_wait_that_ends_early_a_cancelled_request(cluster: Cluster) -> None:
    replicas = Broken()
    gateway = Gateway(replicas, {})
    await gateway.configure(snapshot_tree(cluster.given()))
    caller = Caller(dialect="openai", request_id="1")
    with pytest.raises(RuntimeError, match="a defect"):
        await gateway.service.answer(ChatRequest(model="a", messages=(text_message("user", "x"),)), caller)
    assert gateway.metrics.of("a").requests == {"error": 1}
    asking = asyncio.create_task(gateway.service.answer(EmbedRequest(model="b", inputs=("x",)), caller))
    await replicas.asked.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert gateway.metrics.of("b").requests == {"cancelled": 1}


async def test_a_snapshot_is_parsed_before_it_replaces_the_present_one(
    cluster: Cluster, client: httpx.AsyncClient
) -> None:
    good = snapshot_tree(cluster.given())
    with pytest.raises(ManifestError):
        snapshot_of({**good, "manifest": {"mullama": "v1", "models": {"a": {"fron": "x"}}}}, {})
    with pytest.raises(NotFound, match="none of the declared keys"):
        snapshot_of({**good, "keys": []}, {})
    with pytest.raises(MullamaError, match=r"mullama\.ray/1"):
        snapshot_of({**good, "format": "x"}, {})
    assert snapshot_of({**good, "keys": None}, {"K": "k"}).snapshot.access.keys[0].name == "team"


async def test_a_replica_keeps_its_model_when_new_settings_fail_and_raises_for_the_first(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    given = cluster.given()
    config = model_application(given, "a")["deployments"][0]["user_config"]
    env = {"HOME": str(tmp_path), "MULLAMA_STATE_DIR": str(tmp_path / "s")}
    broken = json.loads(json.dumps(config))
    broken["manifest"]["models"]["a"]["probe"] = {"prompt": "who", "expect": "nobody"}
    replica = ModelReplica("x", env)
    try:
        with pytest.raises(EngineFailed, match="a"):
            await replica.configure(broken)
    finally:
        await replica.close()
    replica = ModelReplica("y", env)
    try:
        await replica.configure(config)
        live = json.loads(json.dumps(config))
        live["manifest"]["models"]["a"]["system"] = "Short."
        await replica.configure(live)
        replica.check_health()
        application = application_name(given, "a")
        cluster.replicas[application] = replica
        broken["manifest"]["models"]["a"] |= {"probe": None, "template": {"text": "{{ messages"}}
        await replica.configure(broken)
        with pytest.raises(EngineFailed, match="the new settings are not used"):
            await probe(cluster, application, "a", "chat")
        assert await serves(replica), "with the settings before"
        await replica.configure(live)
        await probe(cluster, application, "a", "chat")
        await probe(cluster, application, "a", "embedding")
    finally:
        await replica.close()
    assert not (tmp_path / "s" / "ray" / "y").exists()


async def serves(replica: ModelReplica) -> bool:
    found = await replica.ask(EmbedRequest(model="a", inputs=("x",)), Caller(dialect="openai", request_id="1"))
    return not isinstance(found, RemoteError)


async def test_a_request_that_ends_the_engine_is_not_sent_to_another_replica(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    given = cluster.given()
    path = tmp_path / "a.script.json"
    path.write_text(json.dumps({"name": "a", "rules": [{"when": "die", "say": "crash exit"}], "faults": True}))
    application = application_name(given, "a")
    replica = ModelReplica("a-1", {"HOME": str(tmp_path), "MULLAMA_STATE_DIR": str(tmp_path / "s")})
    await replica.configure(model_application(given, "a")["deployments"][0]["user_config"])
    cluster.replicas[application] = replica
    gateway = Gateway(cluster, {})
    try:
        await gateway.configure(snapshot_tree(given))
        caller = Caller(dialect="openai", request_id="1")
        with pytest.raises(Internal, match="the request ended the engine"):
            await gateway.service.answer(ChatRequest(model="a", messages=(text_message("user", "crash exit"),)), caller)
        assert len(cluster.affinities) == 1
    finally:
        await replica.close()


def test_nodes_of_another_version_are_refused() -> None:
    require_version(__version__)
    with pytest.raises(Conflict, match="a node has mullama"):
        require_version("0.0.0")


async def test_the_replicas_of_a_node_download_a_file_once(tmp_path: Path) -> None:
    data = ggufs.model("llama").bytes()
    with StubHub() as hub:
        hub.repo("acme/m", {"m-Q8_0.gguf": data})
        hub.script("m-Q8_0.gguf", Hold(100))
        models = {"m": {"from": "hf:acme/m:Q8_0", "context": {"size": 64, "threads": 1}}}
        tree = {"mullama": "v1", "models": models, "sources": {"hf": {"endpoint": hub.url}}}
        manifest = parse_resolved(tree)
        config = model_application(RayInput(manifest=manifest, version="1"), "m")["deployments"][0]["user_config"]
        env = {**os.environ, "HOME": str(tmp_path), "MULLAMA_STATE_DIR": str(tmp_path / "s"),
               "MULLAMA_CACHE_DIR": str(tmp_path / "d")}  # fmt: skip
        replicas = [ModelReplica(f"m-{number}", env) for number in range(2)]
        try:
            first = asyncio.create_task(replicas[0].configure(config))
            async with asyncio.timeout(120):
                while hub.sent < 100:  # noqa: ASYNC110 - the hub is another thread
                    await asyncio.sleep(0.01)
                second = asyncio.create_task(replicas[1].configure(config))
                await asyncio.wait({second}, timeout=2)
                assert not second.done(), "it waits for the download of the first"
                assert hub.sent < len(data)
                hub.release()
                await asyncio.gather(first, second)
        finally:
            await asyncio.gather(*(replica.close() for replica in replicas))
    assert hub.sent < 2 * len(data)


def test_an_error_travels_as_a_value() -> None:
    sent = [ContextOverflow(9, 4), Busy("full", retry_after=3.0), EngineFailed("x", report="r"), ReplicaLost("y")]
    for error in sent:
        back = unpacked(packed(error))
        assert str(back) == str(error)
        if not isinstance(error, ReplicaLost):
            assert type(back) is type(error)
            assert vars(back) == vars(error)
    inner = ModelUnavailable(NotFound("no file"))
    assert unpacked(packed(inner)).message == "no file"
    assert isinstance(unpacked(RemoteError(kind="Path", args=(), fields={})), MullamaError)

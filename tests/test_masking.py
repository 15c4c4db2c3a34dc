"""Secrets inside addresses: masked in every text for people and clients."""

from __future__ import annotations

import json

import pytest

from mullama.chat import inventory
from mullama.errors import Invalid, masked, masked_tree
from mullama.names import is_loopback, model_name_of, parse_source
from mullama.plan.report import lines, markdown
from mullama.plan.steps import to_tree
from mullama.problems import Problem
from mullama.sources.url import UrlSource
from tests import ggufs
from tests.runtime.runtime_fixture import CALLER, LocalServer
from tests.runtime.runtime_fixture import server as server
from tests.sources.conftest import hub as hub
from tests.stub_hub import StubHub

SECRET = "CANARY-51f0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/x.gguf?sig=S", "https://h/x.gguf?sig=***"),
        ("https://h/x.gguf?a=S&b=S;c=S#f", "https://h/x.gguf?a=***&b=***;c=***#f"),
        ("https://h/x.gguf?S", "https://h/x.gguf?***"),
        ("'https://u:p@h/x.gguf?sig=S' failed", "'https://***@h/x.gguf?sig=***' failed"),
        ("https://token@h/x", "https://***@h/x"),
        ("https://u:p@ss@h/x", "https://***@h/x"),
        ("s3://k:s@bucket/x", "s3://***@bucket/x"),
        ("HTTPS://U:P@H/X?Q=S", "HTTPS://***@H/X?Q=***"),
        ("two: https://h/a?x=1 and http://h/b?y=2", "two: https://h/a?x=*** and http://h/b?y=***"),
        ("https://h/x.gguf?sig=from_env:SIG&b=S", "https://h/x.gguf?sig=from_env:SIG&b=***"),
        ("https://h/x.gguf", "https://h/x.gguf"),
        ("who? user@host a=b", "who? user@host a=b"),
        ('{"from":"https://h/x?sig=S","a":1}', '{"from":"https://h/x?sig=***","a":1}'),
    ],
)
def test_an_address_shows_no_secret(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown
    assert masked_tree({"a": [text, 1, None]}) == {"a": [shown, 1, None]}
    assert str(Invalid(text, hint=text)) == f"{shown} ({shown})"
    assert str(Problem("p", None, text, text)) == f"p: {shown} ({shown})"


def test_an_address_with_a_password_is_refused_without_it() -> None:
    with pytest.raises(Invalid, match=r"https://\*\*\*@host/") as caught:
        parse_source(f"https://user:{SECRET}@host/" + "x" * 200)
    assert SECRET not in str(caught.value)


def test_a_model_is_not_named_after_the_query_of_its_address() -> None:
    assert model_name_of(f"https://host/my.gguf?sig={SECRET}") == "my"


def test_a_value_of_a_query_may_come_from_the_environment() -> None:
    ref = parse_source("https://host/x-00001-of-00002.gguf?a=1&sig=from_env:SIG")
    found = UrlSource({"SIG": "s/e&c"}).locate(ref, lambda: False)  # type: ignore[arg-type]
    assert [file.url for file in found.files] == [
        f"https://host/x-0000{part}-of-00002.gguf?a=1&sig=s%2Fe%26c" for part in (1, 2)
    ]
    assert found.resolved == "https://host/x-00001-of-00002.gguf?a=1&sig=from_env:SIG"
    with pytest.raises(Exception, match="environment variable SIG"):
        UrlSource({}).locate(ref, lambda: False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("127.evil.example", False),
        ("127.0.0.1.evil.example", False), ("localhost.evil.example", False), ("127.1", False), ("", False),
        ("2130706433", False), ("10.0.0.1", False),
    ],
)  # fmt: skip
def test_only_addresses_of_this_machine_are_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.anyio
async def test_no_output_of_a_server_shows_the_secret_of_an_address(server: LocalServer, hub: StubHub) -> None:
    query = f"?sig={SECRET}"
    hub.files["/m.gguf"] = ggufs.model().bytes()
    models = {"m": {"from": f"{hub.url}/m.gguf{query}", "residency": {"load": "on_demand"}}}
    broken = {**models, "n": {"from": f"{hub.url}/none.gguf{query}", "residency": {"load": "on_demand"}}}

    done = await server.apply_lines(models)
    plan = await server.reconciler.plan(server.change(broken))
    failed = await server.apply_lines(broken)
    again = await server.reconciler.plan(server.change({"m": {**models["m"], "from": f"{hub.url}/m.gguf?sig=other"}}))
    cards = [
        await server.service.answer(inventory.ListModels(), CALLER),
        await server.service.answer(inventory.ShowModel(model="m", verbose=True), CALLER),
    ]

    assert done[-1]["outcome"] == "applied"
    assert failed[-1]["outcome"] == "not_found"
    outputs = {
        "apply": done, "failed apply": failed, "plan": to_tree(plan), "other plan": to_tree(again),
        "text": [str(line) for line in lines(again)], "markdown": markdown(again, "m"),
        "status": server.operator.status(), "history": server.operator.history(),
        "events": server.event_log.kept(), "metrics": server.operator.metrics(), "cards": [repr(c) for c in cards],
    }  # fmt: skip
    assert [name for name, output in outputs.items() if SECRET in json.dumps(output, default=str)] == []
    assert f"{hub.url}/m.gguf?sig=***" in json.dumps(outputs["status"])
    assert hub.asked("m.gguf")

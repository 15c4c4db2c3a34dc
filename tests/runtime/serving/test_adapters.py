"""The adapters of a request: by number and name, unknown ones, and those of a name of their own."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.chat.inventory import ListModels
from mullama.errors import Invalid, NotFound, Unsupported
from mullama.runtime.serving.adapters import adapter_scales, numbered
from tests import ggufs
from tests.runtime.runtime_fixture import CALLER, LocalServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((), {}),
        (((0, 0.5),), {0: 0.5}),
        (((1, 0.5), (0, -1.0)), {1: 0.5, 0: -1.0}),
        ((("tone", 2.0), (0, 1.0)), {1: 2.0, 0: 1.0}),
    ],
)
def test_adapters_are_found_by_number_and_by_name(asked: Any, found: dict[int, float]) -> None:
    assert numbered(asked, ["", "tone"], "m") == found


@pytest.mark.parametrize(
    ("asked", "names", "says", "hint"),
    [
        (((2, 1.0),), ["style", ""], r'lora\[0\].id: the model "m" has no adapter 2', "its adapters are 0 (style), 1"),
        (((0, 1.0), ("x", 1.0)), ["style"], r"lora\[1\].id: .* no adapter 'x'", "its adapters are 0 (style)"),
        ((("", 1.0),), [""], "no adapter ''", "its adapters are 0"),
        (((0, 0.0),), [], "no adapter 0", "it has no adapters"),
        (((0, 1.0), ("style", 1.0)), ["style"], "named twice", None),
    ],
)
def test_an_unknown_adapter_is_refused_with_the_known_ones(
    asked: Any, names: list[str], says: str, hint: str | None
) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        numbered(asked, names, "m")
    assert caught.value.field == "lora"
    assert hint is None or caught.value.hint == hint


def _adapters(server: LocalServer) -> dict[str, Any]:
    for name in ("a", "b", "c"):
        (server.home / f"{name}.gguf").write_bytes(ggufs.adapter("scripted", alpha=ord(name)).bytes())
    return {
        "from": server.script(),
        "adapters": [
            {"from": "./a.gguf", "scale": 0.5},
            {"from": "./b.gguf", "name": "support", "scale": 0.8, "expose": True},
            {"from": "./c.gguf", "name": "sales", "expose": True},
        ],
    }


def _request(model: str, *adapters: tuple[int | str, float]) -> chat.CompletionRequest:
    return chat.CompletionRequest(model=model, prompts=("x",), adapters=adapters)


async def test_an_exposed_adapter_is_a_model_of_its_name(server: LocalServer) -> None:
    await server.apply({"base": _adapters(server)})
    find = server.snapshot.find
    assert [adapter.scale for adapter in find("base", "openai").options.adapters] == [0.5, 0.0, 0.0]
    assert adapter_scales(_request("base"), find("base", "openai")) is None
    assert adapter_scales(_request("support"), find("support", "openai")) == (0.5, 0.8, 0.0)
    assert adapter_scales(_request("sales"), find("SALES:latest", "openai")) == (0.5, 0.0, 1.0)
    assert adapter_scales(_request("sales", ("support", 2.0)), find("sales", "openai")) == (0.0, 2.0, 0.0)
    assert find("support", "openai").unit == find("base", "openai").unit
    with pytest.raises(NotFound):
        find("a", "openai")
    listed = await server.service.answer(ListModels(), CALLER)
    parents = {card.name: card.parent for card in listed.models}
    assert parents == {"base": "", "support": "base", "sales": "base"}
    assert await server.ask("support", "say hi") == "hi"
    assert await server.ask("base", "say hi", adapters=(("support", 0.5),)) == "hi"
    with pytest.raises(Invalid, match="no adapter 7"):
        await server.ask("base", "say hi", adapters=((7, 1.0),))
    with pytest.raises(Unsupported, match="adapters write text only"):
        await server.service.answer(chat.EmbedRequest(model="support", inputs=("x",)), CALLER)


async def test_a_name_that_is_exposed_later_keeps_the_model_loaded(server: LocalServer) -> None:
    tree = _adapters(server)
    hidden = {**tree, "adapters": [{**adapter, "expose": False} for adapter in tree["adapters"]]}
    await server.apply({"base": hidden})
    unit = server.snapshot.deployments["base"].unit
    await server.apply({"base": tree})
    assert server.snapshot.deployments["base"].unit == unit
    assert await server.ask("sales", "say hi") == "hi"

"""Parameters of requests that the operator sets, forces or removes."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.request_rules import NO_RULES, GivenParameters, RequestRules, strippable
from mullama.chat.types import ChatRequest, CompletionRequest, Sampling, Tool, text_message
from mullama.manifest.spec.routes import StrippedName

ASKED = ChatRequest(
    model="m",
    messages=(text_message("user", "Hello"),),
    sampling=Sampling(temperature=1.0, logit_bias=((3, 1.0),)),
    stop=("END",),
    think=True,
    tools=(Tool(name="f"),),
    keep_alive=0.0,
)


def given(**values: Any) -> GivenParameters:
    sampling = Sampling(**{name: values.pop(name) for name in tuple(values) if name in Sampling.__struct_fields__})
    return GivenParameters(sampling=sampling, **values)


def test_rules_that_say_nothing_return_the_request_itself() -> None:
    assert NO_RULES.apply(ASKED) is ASKED


RULES: list[tuple[RequestRules, dict[str, Any]]] = [
    (RequestRules(defaults=given(temperature=0.2, top_k=5)), {"sampling.temperature": 1.0, "sampling.top_k": 5}),
    (RequestRules(force=given(temperature=0.2)), {"sampling.temperature": 0.2, "stop": ("END",)}),
    (RequestRules(strip=("temperature",), defaults=given(temperature=0.3)), {"sampling.temperature": 0.3}),
    (RequestRules(strip=("temperature", "stop", "logit_bias")), {"sampling": Sampling(), "stop": ()}),
    (RequestRules(force=given(think=False)), {"think": False, "think_optional": True}),
    (RequestRules(defaults=given(think=False)), {"think": True, "think_optional": False}),
    (RequestRules(force=given(max_tokens=7)), {"max_tokens": 7}),
    (RequestRules(defaults=given(stop=("X",))), {"stop": ("END",)}),
    (RequestRules(strip=("tools", "keep_alive", "think")), {"tools": (), "keep_alive": None, "think": None}),
]


@pytest.mark.parametrize(("rules", "expected"), RULES)
def test_a_request_under_rules(rules: RequestRules, expected: dict[str, Any]) -> None:
    done = rules.apply(ASKED)
    for path, value in expected.items():
        found: Any = done
        for name in path.split("."):
            found = getattr(found, name)
        assert found == value, path
    assert done.messages == ASKED.messages


def test_the_rules_of_a_route_replace_those_of_its_model() -> None:
    model = RequestRules(force=given(temperature=0.1, top_p=0.5), strip=("seed",))
    route = RequestRules(force=given(temperature=0.9), strip=("seed", "stop"))
    both = route.over(model)
    assert both.force == given(temperature=0.9, top_p=0.5)
    assert both.strip == ("seed", "stop")
    assert NO_RULES.over(model) is model
    assert model.over(NO_RULES) is model


def test_every_parameter_that_the_manifest_can_name_is_removed() -> None:
    """Also of a request that has no such field."""
    assert strippable() == set(StrippedName.__args__)  # type: ignore[attr-defined]
    every = RequestRules(strip=tuple(strippable()))
    bare = every.apply(ASKED)
    assert bare == ChatRequest(model="m", messages=ASKED.messages)
    prompt = CompletionRequest(model="m", prompts=("x",), ignore_eos=True)
    assert every.apply(prompt) == CompletionRequest(model="m", prompts=("x",))


def test_tools_that_the_server_calls_are_not_removed_from_requests() -> None:
    tools = (Tool(name="docs__read"), Tool(name="weather"))
    request = ChatRequest(model="m", messages=(), tools=tools, server_tools=1)
    assert RequestRules(strip=("tools",)).apply(request).tools == tools[:1]

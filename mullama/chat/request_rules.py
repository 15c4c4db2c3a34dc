"""Rules of the operator for the parameters of requests: defaults, forced values, and parameters that are removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mullama.chat.types import ANY_DRAFT, ChatRequest, Sampling, TextRequest, ToolChoice
from mullama.struct import Struct, field, field_names, replace

_Request = TypeVar("_Request", bound=TextRequest)
_SAMPLING = frozenset(field_names(Sampling))

# The values of a request that leaves a parameter out, by the parameter's name in the manifest.
_LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "stop": {"stop": ()},
    "num_predict": {"max_tokens": None},
    "think": {"think": None},
    "logprobs": {"logprobs": None},
    "format": {"format": None},
    "tools": {"tools": (), "tool_choice": ToolChoice()},
    "template_arguments": {"template_arguments": ()},
    "lora": {"adapters": ()},
    "draft": {"draft": ANY_DRAFT},
    "cache_prompt": {"cache": True},
    "ignore_eos": {"ignore_eos": False},
    "keep_alive": {"keep_alive": None},
}


class GivenParameters(Struct, frozen=True, kw_only=True):
    """Parameters with a value; None and () are none."""

    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    think: bool | str | None = None

    def over(self, base: GivenParameters) -> GivenParameters:
        """Return `base` with the values that are given here."""
        return GivenParameters(
            sampling=self.sampling.over(base.sampling),
            stop=self.stop or base.stop,
            max_tokens=base.max_tokens if self.max_tokens is None else self.max_tokens,
            think=base.think if self.think is None else self.think,
        )


NOTHING = GivenParameters()


class RequestRules(Struct, frozen=True, kw_only=True):
    """Changes of the parameters of a request: `strip` first, then `defaults`, then `force`."""

    defaults: GivenParameters = NOTHING
    force: GivenParameters = NOTHING
    strip: tuple[str, ...] = ()
    """Names of parameters in the manifest."""

    def over(self, base: RequestRules) -> RequestRules:
        """Return the rules that apply both; a value of these ones replaces that of `base`."""
        if self == NO_RULES or base == NO_RULES:
            return base if self == NO_RULES else self
        return RequestRules(
            defaults=self.defaults.over(base.defaults),
            force=self.force.over(base.force),
            strip=tuple(dict.fromkeys((*base.strip, *self.strip))),
        )

    def apply(self, request: _Request) -> _Request:
        """Return the request under these rules; the same object if they change nothing."""
        if self == NO_RULES:
            return request
        stripped = _without(request, self.strip)
        given = GivenParameters(
            sampling=stripped.sampling, stop=stripped.stop, max_tokens=stripped.max_tokens, think=stripped.think
        )
        ruled = self.force.over(given.over(self.defaults))
        # A declared reasoning is for every model of a route, so one that cannot reason answers with a warning.
        declared = ruled.think is not stripped.think
        return replace(
            stripped, sampling=ruled.sampling, stop=ruled.stop, max_tokens=ruled.max_tokens, think=ruled.think,
            think_optional=stripped.think_optional or declared,
        )  # fmt: skip


NO_RULES = RequestRules()


def strippable() -> frozenset[str]:
    """Return the names of all parameters that can be removed from requests."""
    return _SAMPLING | _LEFT_OUT.keys()


def _without(request: _Request, names: tuple[str, ...]) -> _Request:
    changes: dict[str, Any] = {}
    present = field_names(request)
    for name in names:
        changes |= {key: value for key, value in _LEFT_OUT.get(name, {}).items() if key in present}
    if "tools" in changes and isinstance(request, ChatRequest):
        changes["tools"] = request.tools[: request.server_tools]
    sampling = {name: None for name in names if name in _SAMPLING}
    if sampling:
        changes["sampling"] = replace(request.sampling, **sampling)
    return replace(request, **changes) if changes else request

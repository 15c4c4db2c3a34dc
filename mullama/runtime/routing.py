"""The choice of the model that answers a request to a route. Pure.

The requests of one conversation go to one model, so that its cached prompt is used: the model is chosen by weighted
rendezvous hashing of the conversation's key, without memory of earlier requests. A changed weight moves as few
conversations as possible, and every server with the same manifest makes the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b

from mullama.chat.request_rules import NO_RULES, GivenParameters, RequestRules
from mullama.chat.transcription import TranscriptionRequest
from mullama.chat.types import ChatRequest, CompletionRequest, EmbedRequest, RerankRequest, Sampling
from mullama.errors import BadWeights, Busy, MullamaError, Refused, TimedOut, Unavailable
from mullama.manifest.spec import Manifest, Model, RequestParameters, Route
from mullama.manifest.spec.readers import PEER_SIGN, OnError, target_name
from mullama.manifest.tree import block_to_tree
from mullama.names import ModelName
from mullama.struct import Struct, field_names

Routable = ChatRequest | CompletionRequest | EmbedRequest | RerankRequest | TranscriptionRequest

_BEGINNING = 2048  # characters of a prompt that identify its conversation
_SAMPLING = frozenset(field_names(Sampling))
_HASHES = 2.0**52  # with one half added, each is exact as a double and none is 0 or 1


class Routing(Struct, frozen=True, kw_only=True):
    """A route with options, as requests use it."""

    name: str
    targets: tuple[tuple[str, int], ...]
    """Models, and `MODEL@PEER`, with their weights, of which at least one is more than 0."""
    fallback: tuple[str, ...] = ()
    """Models and routes."""
    on_error: tuple[OnError, ...] = ()
    rules: RequestRules = NO_RULES


class Candidate(Struct, frozen=True, kw_only=True):
    """A model that may answer a request, and the rules of the routes that lead to it."""

    model: str
    rules: RequestRules = NO_RULES


def routings(manifest: Manifest) -> dict[str, Routing]:
    """Return the routes that have options, by the keys of their names."""
    return {
        ModelName.parse(name).key: Routing(
            name=name,
            targets=tuple((target_name(target), target.weight) for target in route.to),
            fallback=route.fallback,
            on_error=route.on_error,
            rules=RequestRules(
                defaults=given_parameters(route.parameters), force=given_parameters(route.force), strip=route.strip
            ),
        )
        for name, route in manifest.routes.items()
        if isinstance(route, Route)
    }


def model_rules(model: Model) -> RequestRules:
    """Return the rules of a model for all its requests."""
    return RequestRules(force=given_parameters(model.force), strip=model.strip)


def given_parameters(block: RequestParameters) -> GivenParameters:
    """Return the parameters that a block of the manifest sets."""
    tree = block_to_tree(block)
    sampling = {name: value for name, value in tree.items() if name in _SAMPLING}
    return GivenParameters(
        sampling=Sampling(**sampling), stop=block.stop, max_tokens=block.num_predict, think=block.think
    )


def candidates(
    route: Routing,
    routes: Mapping[str, Routing],
    key: bytes,
    usable: Callable[[str], bool] = lambda model: True,
    last: Callable[[str], bool] = lambda model: False,
) -> tuple[Candidate, ...]:
    """Return the models for a request with this conversation key, in the order in which they are tried, each once.

    A route in `fallback` stands for the model that it chooses, and its own fallbacks after it. usable: returns False
    for a model that may not answer; the others share its conversations. last: returns True for a fallback that is tried
    after all of these, although it is not usable.
    """
    found: dict[str, Candidate] = {}
    for candidate in _candidates(route, routes, key, usable, NO_RULES):
        found.setdefault(candidate.model, candidate)
    for candidate in _fallbacks(route, routes, key, last, route.rules):
        found.setdefault(candidate.model, candidate)
    return tuple(found.values())


def _candidates(
    route: Routing,
    routes: Mapping[str, Routing],
    key: bytes,
    usable: Callable[[str], bool],
    outer: RequestRules,
) -> Iterator[Candidate]:
    rules = outer.over(route.rules)
    targets = tuple(target for target in route.targets if target[1] and usable(target[0]))
    if targets:
        yield Candidate(model=choose(targets, key), rules=rules)
    yield from _fallbacks(route, routes, key, usable, rules)


def _fallbacks(
    route: Routing,
    routes: Mapping[str, Routing],
    key: bytes,
    usable: Callable[[str], bool],
    rules: RequestRules,
) -> Iterator[Candidate]:
    """rules: of the route, over those of the routes that lead to it."""
    for name in route.fallback:
        inner = routes.get(ModelName.parse(name).key) if PEER_SIGN not in name else None
        if inner is not None:
            yield from _candidates(inner, routes, key, usable, rules)
        elif usable(name):
            yield Candidate(model=name, rules=rules)


def choose(targets: tuple[tuple[str, int], ...], key: bytes) -> str:
    """Return the target of a key by weighted rendezvous hashing: the highest of -weight / ln(hash in (0, 1)).

    Source: Schindelhauer, Schomaker, "Weighted Distributed Hash Tables", 2005 (the logarithmic method).
    """
    if len(targets) == 1:
        return targets[0][0]
    return max(targets, key=lambda target: (_score(target[0], target[1], key), target[0]))[0]


def _score(name: str, weight: int, key: bytes) -> float:
    if weight == 0:
        return -1.0
    number = int.from_bytes(blake2b(name.encode(), key=key, digest_size=8).digest(), "big") >> 12
    return -weight / math.log((number + 0.5) / _HASHES)


def conversation_key(request: Routable, api_key: str | None) -> bytes:
    """Return 32 bytes that all requests of one conversation share, for requests of the API key of this name.

    The first that the request has: its own name of the conversation, its user, its beginning. The beginning of a
    conversation is its system messages and its first user message; that of a prompt is its first 2048 characters.
    Vectors of different models cannot be compared, so requests for them have the key of their API key alone.
    """
    parts: tuple[str, ...]
    match request:
        case ChatRequest() | CompletionRequest() if request.conversation:
            parts = ("conversation", request.conversation)
        case ChatRequest() | CompletionRequest() if request.user:
            parts = ("user", request.user)
        case ChatRequest():
            parts = ("beginning", *_beginning(request))
        case CompletionRequest():
            first = request.prompts[0] if request.prompts else ""
            text = first if isinstance(first, str) else repr(first[:_BEGINNING])
            parts = ("prompt", request.system or "", text[:_BEGINNING])
        case _:
            parts = ("vectors",)
    digest = blake2b(digest_size=32)
    for part in (api_key or "", *parts):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def _beginning(request: ChatRequest) -> Iterator[str]:
    for message in request.messages:
        yield message.text[:_BEGINNING]
        if message.role == "user":
            return


def failure_class(error: MullamaError) -> OnError | None:
    """Return the class of a failure that another model may not have; None for a fault of the request itself."""
    match error:
        case Busy():
            return "overloaded"
        case TimedOut():
            return "timeout"
        case Unavailable() | Refused() | BadWeights():
            return "unavailable"
        case _:
            return None

"""The models that may answer one request, in the order in which they are tried."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar

from mullama.chat import types as chat
from mullama.chat.request_rules import RequestRules
from mullama.dialects import base as dialect
from mullama.errors import Denied, Invalid, MullamaError, NotFound, Unavailable
from mullama.names import DEFAULT_ROUTE
from mullama.runtime.base import Caller
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.routing import Candidate, Routable, Routing, candidates, conversation_key, failure_class
from mullama.runtime.snapshot import Deployment, Snapshot, key_of
from mullama.struct import replace

R = TypeVar("R", bound=Routable)
FORWARDED = (chat.ChatRequest, chat.CompletionRequest, chat.EmbedRequest, chat.RerankRequest)
"""The requests that a peer answers."""


class Tries(Generic[R]):
    """The request as the present model gets it. Raises `NotFound` and `Denied` for a name without such a model."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        peers: PeerBook,
        asked: R,
        caller: Caller,
        metrics: Metrics | None = None,
    ) -> None:
        """metrics: counts the fallbacks."""
        self._snapshot, self._peers, self._asked = snapshot, peers, asked
        self._caller, self._metrics = caller, metrics
        self._begin()

    def _begin(self) -> None:
        snapshot, name = self._snapshot(), self._asked.model
        self._generation = snapshot.generation
        self._route = snapshot.routes.get(key_of(name))
        self._left: list[Candidate] = []
        self.request, self.caller = self._asked, self._caller
        if self._route is None:
            deployment = declared(snapshot, name, self._caller)
            self.model = deployment.name
            self.request = _ruled(self._asked, deployment.rules)
            return
        self._left = _usable(snapshot, self._peers, self._route, self._asked, self._caller)
        self._next()

    def _next(self) -> None:
        candidate = self._left.pop(0)
        self.model = candidate.model
        deployment = self._snapshot().deployments.get(candidate.model)
        rules = candidate.rules.over(deployment.rules) if deployment else candidate.rules
        self.request = replace(_ruled(self._asked, rules), model=candidate.model)
        # The route is what its key may use.
        self.caller = replace(self._caller, models=("*",), route=self._asked.model, falls_back=self._has_next)

    @property
    def _has_next(self) -> bool:
        return bool(self._left) and self._route is not None and "unavailable" in self._route.on_error

    def after(self, error: MullamaError) -> bool:
        """Go to the next model after a failure before the first byte; return False if there is none for it."""
        snapshot = self._snapshot()
        here = self.model in snapshot.deployments or self._peers.has(self.model)
        if snapshot.generation != self._generation and not here:
            with contextlib.suppress(NotFound, Denied):  # `error` names the removal
                self._begin()  # a reload removed the model; the name may lead to another one now
                return True
            return False
        reason, failed = failure_class(error), self.model
        if self._route is None or not self._left or reason is None or reason not in self._route.on_error:
            return False
        self._next()
        if self._metrics is not None:
            self._metrics.add_fallback(self._route.name, failed, self.model, reason)
        return True


def _usable(snapshot: Snapshot, peers: PeerBook, route: Routing, asked: Routable, caller: Caller) -> list[Candidate]:
    """Return the models of the route that are served in the caller's dialect and that its key may use.

    A key for the route may use all of them, one for a model that model only. Peers that are ejected are passed over;
    without any other model they are tried, and report their own failure. Crowded ones are the last fallbacks: a lost
    peer holds its requests for a while, so that few others have room for more than their share.
    """

    def serves(model: str) -> bool:
        deployment = snapshot.deployments.get(model)
        if deployment is None:
            return peers.has(model) and isinstance(asked, FORWARDED) and peers.forwards(caller.hops)
        return snapshot.speaks(deployment, caller.dialect)

    def usable(model: str) -> bool:
        return serves(model) and caller.may_use(model, route.name, asked.model)

    ready_there = peers.usable(route.targets)

    def ready(model: str) -> bool:
        return usable(model) and (model in snapshot.deployments or ready_there(model))

    key = conversation_key(asked, caller.key)

    def crowded(model: str) -> bool:
        return usable(model) and peers.has_room(model)

    found = candidates(route, snapshot.routes, key, ready, crowded) or candidates(route, snapshot.routes, key, usable)
    if found:
        return list(found)
    if candidates(route, snapshot.routes, key, serves):
        raise not_allowed(caller, asked.model)
    if not peers.forwards(caller.hops) and any(map(peers.has, (*(name for name, _ in route.targets), *route.fallback))):
        raise Unavailable(
            f"'{asked.model}' leads in a circle: the request was forwarded by a server that it would be sent to",
            hint="one of these servers must answer the name with a model of its own",
        )
    raise snapshot.missing(asked.model, caller.dialect, known=True)


def declared(snapshot: Snapshot, name: str, caller: Caller) -> Deployment:
    """Return the model behind a name, also one without files. Raises `Denied` if the key may not use it."""
    deployment = snapshot.find(name, caller.dialect)
    if not caller.may_use(deployment.name, name):
        raise not_allowed(caller, name)
    return deployment


def served(snapshot: Snapshot, name: str, caller: Caller) -> Deployment:
    """Return the model behind a name.

    Raises `NotFound`, `Denied` for a model that the key may not use, and `Unavailable` for one without files.
    """
    deployment = declared(snapshot, name, caller)
    if (error := deployment.unavailable) is not None:
        message = f"model '{name}' cannot be served: {error.message}"
        raise Unavailable(message, hint=error.hint, retry_after=error.retry_after) from error
    return deployment


def first_model(snapshot: Callable[[], Snapshot], peers: PeerBook, operation: dialect.Operation, caller: Caller) -> str:
    """Return the name of the model that answers an operation unless it fails."""
    asked = operation.chat if isinstance(operation, chat.CountRequest | chat.RenderRequest) else operation
    if isinstance(asked, Routable):
        return Tries(snapshot, peers, asked, caller).model
    return declared(snapshot(), dialect.model_of(operation) or "", caller).name


def default_model(snapshot: Snapshot, caller: Caller, find: Callable[[str, Caller], Deployment]) -> str:
    """Return the name of the model of a request that names none. Raises `Invalid` without such a model."""
    if DEFAULT_ROUTE in snapshot.routes:
        return DEFAULT_ROUTE  # the request itself decides on its model
    try:
        deployment = find(DEFAULT_ROUTE, caller)
    except NotFound as error:
        if DEFAULT_ROUTE in snapshot.names:
            raise
        raise Invalid(
            f"model is required: the request names no model, and the manifest has no route '{DEFAULT_ROUTE}'",
            hint="name a model in the request, or declare `routes: {default: NAME}` in the manifest",
            field="model",
        ) from error
    # A key that may use the route only continues under the route's name.
    return deployment.name if caller.may_use(deployment.name) else DEFAULT_ROUTE


def not_allowed(caller: Caller, name: str) -> Denied:
    """Return the error for a model that the key of a caller may not use."""
    return Denied(
        f"the key {caller.key!r} may not use the model '{name}'",
        hint="auth.keys.*.models lists what a key may use",
        authenticated=True,
    )


def _ruled(asked: R, rules: RequestRules) -> R:
    if isinstance(asked, chat.TextRequest):
        return rules.apply(asked)  # type: ignore[return-value]  # of the same class
    if isinstance(asked, chat.EmbedRequest) and "keep_alive" in rules.strip:
        return replace(asked, keep_alive=None)
    return asked

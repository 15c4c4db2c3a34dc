"""The first request to a new application, by its handle as the gateway sends them."""

from __future__ import annotations

from contextlib import aclosing

from mullama import __version__
from mullama.chat.types import CompletionRequest, EmbedRequest, RerankRequest, TokenizeRequest
from mullama.errors import Conflict
from mullama.runtime.base import Caller
from mullama.targets.ray.service import Replicas
from mullama.targets.ray.wire import FindRefusal, RemoteError, unpacked


def require_version(version: str) -> None:
    """Raise `Conflict` if this node has another version than the command that applies."""
    if version != __version__:
        raise Conflict(f"a node has mullama {__version__}, and the command is {version}: the nodes need its version")


async def probe(replicas: Replicas, application: str, model: str, task: str) -> None:
    """Ask for one token, a vector or a rank, by the task of the model.

    Raises the error of the answer, and that of settings which the replica did not take.
    """
    caller = Caller(dialect="mullama", request_id="probe")
    _check(await replicas.ask(application, FindRefusal(), caller, b""))
    if task == "chat":
        request = CompletionRequest(model=model, prompts=("ok",), max_tokens=1)
        async with aclosing(replicas.stream(application, request, caller, b"")) as events:
            async for some in events:
                _check(some)
        return
    operation: EmbedRequest | RerankRequest | TokenizeRequest
    match task:
        case "embedding":
            operation = EmbedRequest(model=model, inputs=("ok",))
        case "rerank":
            operation = RerankRequest(model=model, query="ok", documents=("ok",))
        case _:
            operation = TokenizeRequest(model=model, text="ok")
    _check(await replicas.ask(application, operation, caller, b""))


def _check(found: object) -> None:
    if isinstance(found, RemoteError):
        raise unpacked(found)

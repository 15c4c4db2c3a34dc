"""Commands that bring models into memory and let them go: load, unload, stop, default."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mullama.cli.api_client.discover import FoundServer, find, load_manifest, require
from mullama.cli.app.context import CommandContext, Parser, UsageError, timeout_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.models.pull import located
from mullama.cli.server.background import stop as stop_server
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.errors import NotFound, TimedOut
from mullama.units import size

_LOOK_SECONDS = 0.05
_DECLARING = {"--gpu-layers": "gpu", "--context-size": "context"}
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def load_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("model", metavar="NAME", help="a model, a route, or a source that is fetched first")
    declaring_options(parser)
    parser.add_argument("--keepalive", type=keep_alive, metavar="TIME", help="how long it stays without a request")
    parser.add_argument("--default", action="store_true", help="let it answer requests that name no model")


def keep_alive(text: str) -> float:
    """`5m`, `90` (seconds), or a negative number for ever → seconds."""
    from mullama.cli.app.context import seconds

    return -1.0 if text.startswith("-") or text == "never" else seconds(text)


def load(call: CommandContext) -> int:
    """Have a model in memory. One that is not known yet is made from its source, with what is said."""
    options = call.options
    server = ensure_server(call)
    name = present(call, server, options.model, declared_by(options))["name"]
    body: dict[str, Any] = {"name": name}
    if options.keepalive is not None:
        body["keep_alive"] = options.keepalive
    server.client.post("/api/models/load", body, within=3600.0)
    if options.default:
        server.client.post("/api/models/default", {"name": name}, within=600.0)
    model = server.client.get(model_path(name))
    call.terminal.line(
        f"{name} is loaded: {model['parameter_size'] or '?'} parameters, context {model['context_size']}, "
        f"{size(model['memory'])}"
    )
    return DONE


def declaring_options(parser: Parser) -> None:
    """What is said of a model that is made of a source."""
    parser.add_argument("-g", "--gpu-layers", type=int, metavar="N", help="for a source: layers on the GPU")
    parser.add_argument("-c", "--context-size", type=int, metavar="N", help="for a source: tokens per request")


def declared_by(options: argparse.Namespace) -> dict[str, Any]:
    """What `declaring_options` say, in the manifest's words; -1 layers are all."""
    said: dict[str, Any] = {}
    if options.gpu_layers is not None:
        said["gpu"] = {"layers": options.gpu_layers if options.gpu_layers >= 0 else "all"}
    if options.context_size is not None:
        said["context"] = {"size": options.context_size}
    return said


def present(
    call: CommandContext, server: FoundServer, name: str, declared: Mapping[str, Any] = _NOTHING
) -> dict[str, Any]:
    """The model as the server knows it, its `name` as it was said; of an unknown name as a source one is made.

    Raises `NotFound` for what is neither, `Usage` for a known model that is to be declared otherwise.
    """
    try:
        model = server.client.get(model_path(name))
    except NotFound as unknown:
        if problem := no_source(name):
            raise NotFound(unknown.message, name=name, hint=unknown.hint or problem.hint) from unknown
        return _made(call, server, name, declared)
    if declared:
        said = ", ".join(option for option, block in _DECLARING.items() if block in declared)
        raise UsageError(f"{said}: {name} is declared already", hint="change its declaration, or name a source")
    return {**model, "name": name}


def no_source(name: str) -> NotFound | None:
    """Why `pull` would not take the name; None for a short name, and for a text with a scheme or a path."""
    from mullama.names import AliasRef, parse_source
    from mullama.sources.aliases import aliases, expand

    ref = parse_source(name)
    if isinstance(ref, AliasRef):
        try:
            expand(ref, aliases())
        except NotFound as error:
            return error
    return None


def _made(call: CommandContext, server: FoundServer, source: str, declared: Mapping[str, Any]) -> dict[str, Any]:
    from mullama.cli.api_client.tasks import follow_task
    from mullama.cli.models.upload import sent
    from mullama.names import model_name_of

    place = located(call, source)
    path = model_path(model_name_of(place))
    model = sent(call, server, {"from": place, **declared})
    follow_task(call, server.client.lines("PUT", path, {"model": model, "stream": True}))
    return dict(server.client.get(path))


def default_model(server: FoundServer) -> str:
    """The model that answers where none is named: the default route's, else the only one."""
    status = server.client.get("/api/v1/status")
    if default := (status.get("routes") or {}).get("default"):
        return str(default)
    models = [str(model["name"]) for model in status.get("models") or ()]
    if len(models) != 1:
        known = ", ".join(models[:8])
        raise NotFound("no model was named, and none is the default", hint=f"one of {known}" if known else "pull one")
    return models[0]


def unload_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("model", metavar="NAME", help="a model or a route")
    parser.add_argument("--force", action="store_true", help="end its requests instead of waiting for them")
    timeout_option(parser, "2m")


def unload(call: CommandContext) -> int:
    """Wait for its requests to end, then let it go. It stays declared: the next request loads it again."""
    return _unload(call, require(call), call.options.model)


def _unload(call: CommandContext, server: FoundServer, name: str) -> int:
    server.client.post(model_path(name, "unload"), {"force": call.options.force})
    deadline = time.monotonic() + call.options.timeout
    while server.client.get(model_path(name))["loaded"]:
        if time.monotonic() > deadline:
            raise TimedOut(f"{name} is still in use; it goes once its requests have ended", hint="--force ends them")
        time.sleep(_LOOK_SECONDS)
    call.terminal.line(f"{name} is unloaded")
    return DONE


def stop_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("model", nargs="?", metavar="NAME", help="unload this model; none: stop the server")
    parser.add_argument(
        "-f", "--force", action="store_true", help="end requests, or a server that does not stop in time"
    )
    timeout_option(parser, "2m")


def stop(call: CommandContext) -> int:
    """With a name, as `unload`; without, the server ends once its requests have ended."""
    if call.options.model is not None:
        return _unload(call, require(call), call.options.model)
    server = find(call, lambda: load_manifest(call))
    if server is None:
        call.terminal.line("no server runs; nothing to stop")
        return DONE
    stop_server(server, within=call.options.timeout, force=call.options.force)
    call.terminal.line("the server is stopped")
    return DONE


def default_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("model", nargs="?", metavar="NAME", help="the model; none: tell which it is")


def default(call: CommandContext) -> int:
    """Which model answers a request that names none."""
    if call.options.model is None:
        routes = require(call).client.get("/api/v1/status").get("routes") or {}
        if "default" not in routes:
            raise NotFound("no model is the default", hint="mullama default NAME sets one")
        call.terminal.line(str(routes["default"]))
        return DONE
    server = ensure_server(call)
    server.client.post("/api/models/default", {"name": call.options.model}, within=600.0)
    call.terminal.line(f"{call.options.model} is the default")
    return DONE

"""Commands that bring models into memory and let them go: load, unload, stop, default."""

from __future__ import annotations

import time
from typing import Any

from mullama.cli.background import ensure_server, model_path, place_options
from mullama.cli.call import Call, Parser, Usage, timeout_option
from mullama.cli.exits import DONE
from mullama.cli.launch import stop as stop_server
from mullama.cli.locate import Server, find, load_manifest, require
from mullama.cli.pulling import located
from mullama.errors import NotFound, TimedOut
from mullama.plan.report import size

_LOOK_SECONDS = 0.05


def load_options(parser: Parser) -> None:
    place_options(parser)
    parser.add_argument("model", metavar="NAME", help="a model, a route, or a source that is fetched first")
    parser.add_argument("-g", "--gpu-layers", type=int, metavar="N", help="for a source: layers on the GPU")
    parser.add_argument("-c", "--context-size", type=int, metavar="N", help="for a source: tokens per request")
    parser.add_argument("--keepalive", type=keep_alive, metavar="TIME", help="how long it stays without a request")
    parser.add_argument("--default", action="store_true", help="let it answer requests that name no model")


def keep_alive(text: str) -> float:
    """`5m`, `90` (seconds), or a negative number for ever → seconds."""
    from mullama.cli.call import seconds

    return -1.0 if text.startswith("-") or text == "never" else seconds(text)


def load(call: Call) -> int:
    """Have a model in memory. One that is not known yet is made from its source, with what is said."""
    options = call.options
    server = ensure_server(call)
    name = known_or_made(call, server, options.model, gpu_layers=options.gpu_layers, context_size=options.context_size)
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


def known_or_made(call: Call, server: Server, name: str, **declared: int | None) -> str:
    """The name of a model that the server knows; made from `name` as a source, and fetched, where it knows none."""
    from mullama.cli.tasks import follow_task
    from mullama.names import model_name_of

    said = {key: value for key, value in declared.items() if value is not None}
    try:
        server.client.get(model_path(name))
    except NotFound:
        source = located(call, name)
        made = model_name_of(source)
        tree: dict[str, Any] = {"from": source}
        if "gpu_layers" in said:
            tree["gpu"] = {"layers": said["gpu_layers"]}
        if "context_size" in said:
            tree["context"] = {"size": said["context_size"]}
        follow_task(call, server.client.lines("PUT", model_path(made), {"model": tree, "stream": True}))
        return made
    if said:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in said)
        raise Usage(f"{options}: {name} is declared already", hint="change its declaration, or load a source")
    return name


def unload_options(parser: Parser) -> None:
    place_options(parser)
    parser.add_argument("model", metavar="NAME", help="a model or a route")
    timeout_option(parser, "2m")


def unload(call: Call) -> int:
    """Wait for its requests to end, then let it go. It stays declared: the next request loads it again."""
    return _unload(call, require(call), call.options.model)


def _unload(call: Call, server: Server, name: str) -> int:
    server.client.post(model_path(name, "unload"), {})
    deadline = time.monotonic() + call.options.timeout
    while server.client.get(model_path(name))["loaded"]:
        if time.monotonic() > deadline:
            raise TimedOut(f"{name} is still in use; it goes once its requests have ended")
        time.sleep(_LOOK_SECONDS)
    call.terminal.line(f"{name} is unloaded")
    return DONE


def stop_options(parser: Parser) -> None:
    place_options(parser)
    parser.add_argument("model", nargs="?", metavar="NAME", help="unload this model; none: stop the server")
    parser.add_argument("-f", "--force", action="store_true", help="end a server that does not stop in time")
    timeout_option(parser, "2m")


def stop(call: Call) -> int:
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
    place_options(parser)
    parser.add_argument("model", nargs="?", metavar="NAME", help="the model; none: tell which it is")


def default(call: Call) -> int:
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

"""`mullama load`, `unload`, `stop` and `default`: load and unload models, and set the default one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mullama.cli.api_client.discover import FoundServer, find, require
from mullama.cli.app.context import CommandContext, Parser, timeout_option, yes_option
from mullama.cli.app.exit_codes import DONE, REFUSED
from mullama.cli.manifest.down import may_stop
from mullama.cli.models.pull import absolute_source
from mullama.cli.server.background import stop as stop_server
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.errors import Conflict, NotFound, TimedOut
from mullama.units import size

_POLL_SECONDS = 0.05
_DECLARATION_OPTIONS = {"--gpu-layers": "gpu", "--context-size": "context", "--mmproj": "mmproj"}
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def load_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("model", metavar="NAME", help="a model, a route, or a source to download")
    declaration_options(parser)
    parser.add_argument("--keepalive", type=keep_alive, metavar="TIME", help="time to stay loaded without requests")
    parser.add_argument("--default", action="store_true", help="make it the default model")


def keep_alive(text: str) -> float:
    """Parse `5m` or `90` as seconds; `never` and negative values keep the model loaded and return -1."""
    from mullama.cli.app.context import seconds

    return -1.0 if text.startswith("-") or text == "never" else seconds(text)


def load(call: CommandContext) -> int:
    """Load a model. An unknown name is taken as a source, and a model is created from it."""
    options = call.options
    server = ensure_server(call)
    name = resolve_model(call, server, options.model, declared_fields(call))["name"]
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


def declaration_options(parser: Parser) -> None:
    """Add the options that declare a model created from a source, or change one that pull or create added."""
    parser.add_argument("-g", "--gpu-layers", type=int, metavar="N", help="layers on the GPU, -1 for all")
    parser.add_argument("-c", "--context-size", "--ctx-size", type=int, metavar="N", help="tokens per request")
    parser.add_argument("--mmproj", metavar="SOURCE", help="the projector of images and sound, or none")


def declared_fields(call: CommandContext) -> dict[str, Any]:
    """Return the values of `declaration_options` as fields of the manifest."""
    fields: dict[str, Any] = {}
    options = call.options
    if options.mmproj is not None:
        from mullama.cli.models.pull import absolute_source

        given = options.mmproj
        fields["mmproj"] = given if given in ("auto", "none") else absolute_source(call, given)
    if options.gpu_layers is not None:
        fields["gpu"] = {"layers": options.gpu_layers if options.gpu_layers >= 0 else "all"}
    if options.context_size is not None:
        fields["context"] = {"size": options.context_size}
    return fields


def resolve_model(
    call: CommandContext, server: FoundServer, name: str, fields: Mapping[str, Any] = _EMPTY
) -> dict[str, Any]:
    """Return the server's description of a model; create the model when the name is a source.

    fields: declaration of a new model, or a change of one that pull or create added. Raises `NotFound` for a name that
    is neither a model nor a source, `Conflict` for fields of a model that the manifest declares.
    """
    try:
        model = server.client.get(model_path(name))
    except NotFound as unknown:
        try:
            return _create_from_source(call, server, name, fields)
        except NotFound as error:
            # Both may suggest names: those of the source are nearer to the reason.
            hints = (error.hint,) if "did you mean" in error.hint else (unknown.hint, error.hint)
            message = f"{unknown.message}: {error.message}"
            raise NotFound(message, name=name, hint=" ".join(filter(None, hints))) from error
    return _redeclared(call, server, name, fields) if fields else {**model, "name": name}


def _redeclared(call: CommandContext, server: FoundServer, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Change these fields of a model that pull or create added; return its description."""
    from mullama.cli.api_client.tasks import follow_task
    from mullama.cli.models.upload import upload_files

    body = {"model": {"from": name, **upload_files(call, server, fields)}, "stream": True}
    try:
        follow_task(call, server.client.lines("PUT", model_path(name), body))
    except Conflict as error:
        given = ", ".join(option for option, field in _DECLARATION_OPTIONS.items() if field in fields)
        raise Conflict(f"{given}: {error.message}", hint=f"{error.hint}; without the option it is loaded") from error
    return {**server.client.get(model_path(name)), "name": name}


def named_source(text: str) -> tuple[str, str]:
    """Return the name and the source of `NAME:SOURCE`, such as `chat:./model.gguf`; the name is empty without one.

    A source after a name begins with a scheme, or as a path does, so that a tag is not taken for one.
    """
    from mullama.names import ModelName

    name, _, rest = text.partition(":")
    if name in _SCHEMES or not rest.startswith(("./", "../", "/", "~", *(f"{scheme}:" for scheme in _SCHEMES))):
        return "", text
    return ModelName.parse(name).text, rest


_SCHEMES = ("builtin", "file", "hf", "http", "https", "ollama", "s3")


def _create_from_source(
    call: CommandContext, server: FoundServer, source: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    from mullama.cli.api_client.tasks import follow_task
    from mullama.cli.models.upload import upload_files
    from mullama.names import model_name_of

    alias, spec = named_source(source)
    source = absolute_source(call, spec)
    path = model_path(alias or model_name_of(source))
    model = upload_files(call, server, {"from": source, **fields})
    follow_task(call, server.client.lines("PUT", path, {"model": model, "stream": True}))
    return dict(server.client.get(path))


def default_model(server: FoundServer) -> str:
    """Return the default route, else the only model; raise `NotFound` when there is neither."""
    status = server.client.get("/api/v1/status")
    if default := (status.get("routes") or {}).get("default"):
        return str(default)
    models = [str(model["name"]) for model in status.get("models") or ()]
    if len(models) != 1:
        known = ", ".join(models[:8])
        raise NotFound(
            "no model is named and there is no default", hint=f"name one of {known}" if known else "pull one"
        )
    return models[0]


def unload_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("model", metavar="NAME", help="a model or a route")
    parser.add_argument("--force", action="store_true", help="cancel its requests instead of waiting for them")
    timeout_option(parser, "2m")


def unload(call: CommandContext) -> int:
    """Unload a model after its requests have ended. The next request loads it again."""
    return _unload(call, require(call), call.options.model)


def _unload(call: CommandContext, server: FoundServer, name: str) -> int:
    others = _sharing(server, name)
    server.client.post(model_path(name, "unload"), {"force": call.options.force})
    deadline = time.monotonic() + call.options.timeout
    while server.client.get(model_path(name))["loaded"]:
        if time.monotonic() > deadline:
            raise TimedOut(
                f"{name} is still in use; it is unloaded when its requests have ended", hint="--force cancels them"
            )
        time.sleep(_POLL_SECONDS)
    also = f", and with it {', '.join(others)} (same context)" if others else ""
    call.terminal.line(f"{name} is unloaded{also}")
    return DONE


def _sharing(server: FoundServer, name: str) -> list[str]:
    """Return the other loaded models with the same context."""
    status = server.client.get("/api/v1/status")
    name = (status.get("routes") or {}).get(name, name)
    contexts = {
        str(model["name"]): (not model["memory_own"] and model.get("shared_with")) or model["name"]
        for model in status.get("models") or ()
        if model.get("memory")
    }
    return [other for other, context in contexts.items() if other != name and context == contexts.get(name)]


def stop_options(parser: Parser) -> None:
    instance_options(parser, other_f=True)
    parser.add_argument("model", nargs="?", metavar="NAME", help="unload this model; without it, stop the server")
    parser.add_argument(
        "-f", "--force", action="store_true", help="cancel requests; kill a server that does not stop in time"
    )
    yes_option(parser)
    timeout_option(parser, "2m")


def stop(call: CommandContext) -> int:
    """Unload a model like `unload`, or without a name stop the server after its requests have ended."""
    if call.options.model is not None:
        return _unload(call, require(call), call.options.model)
    server = find(call)
    if server is None:
        call.terminal.line("no server is running; nothing to stop")
        return DONE
    if not may_stop(call):
        call.terminal.note("nothing was changed")
        return REFUSED
    stop_server(server, within=call.options.timeout, force=call.options.force)
    call.terminal.line("the server is stopped")
    return DONE


def default_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("model", nargs="?", metavar="NAME", help="the model; without it, print the default")


def default(call: CommandContext) -> int:
    """Print or set the model that answers requests without a model name."""
    if call.options.model is None:
        routes = require(call).client.get("/api/v1/status").get("routes") or {}
        if "default" not in routes:
            raise NotFound("there is no default model", hint="mullama default NAME sets one")
        call.terminal.line(str(routes["default"]))
        return DONE
    server = ensure_server(call)
    server.client.post("/api/models/default", {"name": call.options.model}, within=600.0)
    call.terminal.line(f"{call.options.model} is the default model")
    return DONE

"""`mullama serve`: the server in the foreground, which applies the manifest and follows its file.

Without a manifest it serves what the command line says, and what pull and create add: an implicit manifest.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import has_manifest, load_manifest, origin, records_of
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 11434

# What an implicit manifest can say: the attribute of the options, and the option that says it.
_SAID = {
    "model": "--model",
    "http_port": "--http-port",
    "http_addr": "--http-addr",
    "gpu_layers": "--gpu-layers",
    "context_size": "--context-size",
    "threads": "--threads",
    "require_api_key": "--require-api-key",
}


def serve_options(parser: Parser) -> None:
    manifest_options(parser)
    implicit_options(parser)
    # Used by apply: answer on the control socket, and wait there for the first manifest.
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)
    # Used by verbs that find no manifest: serve the implicit one.
    parser.add_argument("--implicit", action="store_true", help=argparse.SUPPRESS)


def implicit_options(parser: Parser) -> None:
    """What stands in for a manifest where there is none."""
    parser.add_argument(
        "-m", "--model", action="append", metavar="SPEC",
        help="without a manifest: serve this; SPEC or NAME=SPEC, may be given several times",
    )  # fmt: skip
    parser.add_argument("-p", "--http-port", type=int, metavar="PORT", help="without a manifest: the port")
    parser.add_argument("--http-addr", metavar="ADDR", help="without a manifest: the address to listen on")
    parser.add_argument("-g", "--gpu-layers", type=int, metavar="N", help="without a manifest: layers on the GPU")
    parser.add_argument("-c", "--context-size", type=int, metavar="N", help="without a manifest: tokens per request")
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="without a manifest: CPU threads")
    parser.add_argument(
        "--require-api-key", action="store_true", default=None,
        help="without a manifest: ask clients for the key in MULLAMA_API_KEY",
    )  # fmt: skip


def serve(call: CommandContext) -> int:
    """Run until stopped; what the process is made of is put together in `wiring`."""
    from mullama.cli.server.wiring import run_server

    if call.options.file == "-":
        raise UsageError("serve follows a file, not standard input", hint="-f FILE names it")
    loaded = _loaded(call)
    return run_server(
        loaded,
        origin=origin(loaded),
        records=records_of(call, loaded),
        env=call.env,
        held=call.options.held,
    )


def _loaded(call: CommandContext) -> LoadedManifest:
    given = said(call)
    if not given and not call.options.implicit:
        return load_manifest(call)
    if call.options.file is not None or (given and has_manifest(call) and not call.options.implicit):
        named = ", ".join(_SAID[name] for name in given)
        raise UsageError(f"{named} and a manifest cannot both be", hint="say it in the manifest")
    return implicit_manifest(call, given)


def said(call: CommandContext) -> dict[str, object]:
    """The options of the call that stand in for a manifest."""
    return {name: value for name in _SAID if (value := getattr(call.options, name, None)) is not None}


def implicit_arguments(given: Mapping[str, object]) -> list[str]:
    """The same for the command line of another process."""
    arguments = ["--implicit"]
    for name, value in given.items():
        if value is True:
            arguments.append(_SAID[name])
            continue
        for item in value if isinstance(value, list) else [value]:
            arguments += [_SAID[name], str(item)]
    return arguments


def implicit_manifest(call: CommandContext, given: Mapping[str, object]) -> LoadedManifest:
    """The manifest that the options stand for; an empty one for none."""
    from mullama.manifest.dump import to_yaml
    from mullama.manifest.load import load_text

    text = to_yaml(implicit_tree(given))
    return load_text(text, name="<the command line>", base_dir=str(call.folder), profiles=(), env=call.env)


def implicit_tree(given: Mapping[str, object]) -> dict[str, object]:
    """The implicit manifest as a tree in the manifest's words."""
    from mullama.names import model_name_of

    listen = f"{given.get('http_addr') or DEFAULT_ADDRESS}:{given.get('http_port', DEFAULT_PORT)}"
    tree: dict[str, object] = {"mullama": "v1", "server": {"listen": [listen]}}
    if given.get("require_api_key"):
        key = {"secret": {"from_env": "MULLAMA_API_KEY"}, "roles": ["infer", "admin", "read"]}
        tree["auth"] = {"keys": {"cli": key}}
    context = {key: given[name] for name, key in (("context_size", "size"), ("threads", "threads")) if name in given}
    defaults = {
        **({"context": context} if context else {}),
        **({"gpu": {"layers": given["gpu_layers"]}} if "gpu_layers" in given else {}),
    }
    if defaults:
        tree["defaults"] = defaults
    models = {}
    specs = given.get("model")
    for spec in specs if isinstance(specs, list) else []:
        name, separator, source = spec.partition("=")
        models[name if separator else model_name_of(spec)] = {"from": source if separator else spec}
    if models:
        tree |= {"models": models, "routes": {"default": next(iter(models))}}
    return tree

"""`mullama serve`: run the server in the foreground, apply the manifest and watch its file.

Without a manifest, the options of the command line make an implicit one; `pull` and `create` add models to it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from mullama.cli.api_client.discover import StartManifest, has_manifest, origin, records_of, start_manifest
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.runtime.worker.spawn import SpawnedWorker

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 11434
BRAVE = "brave"
"""The value of --enable-search without an address."""
_BRAVE_KEY = "BRAVE_API_KEY"
LOG_LEVELS = ("debug", "info", "warning", "error")

# Options that make an implicit manifest, by their attribute in the parsed arguments.
_IMPLICIT_OPTIONS = {
    "model": "--model",
    "http_port": "--http-port",
    "http_addr": "--http-addr",
    "gpu_layers": "--gpu-layers",
    "context_size": "--context-size",
    "threads": "--threads",
    "require_api_key": "--require-api-key",
    "enable_search": "--enable-search",
    "search_embedding_model": "--search-embedding-model",
}


def serve_options(parser: Parser) -> None:
    manifest_options(parser)
    implicit_options(parser)
    log_level_option(parser)
    # Used by apply: listen on the control socket only and wait there for the first manifest.
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)
    # Used by commands that find no manifest: serve the implicit one.
    parser.add_argument("--implicit", action="store_true", help=argparse.SUPPRESS)


def log_level_option(parser: Parser, of: str = "") -> None:
    """Add --log-level. of: the server whose log it is, for the help."""
    parser.add_argument(
        "--log-level", action="append", metavar="[PART=]LEVEL",
        help=f"minimum level of the log{of} or of one part of it, in place of observability.logs; may be repeated",
    )  # fmt: skip


def implicit_options(parser: Parser) -> None:
    """Add the options that make an implicit manifest."""
    parser.add_argument(
        "-m", "--model", action="append", metavar="SPEC",
        help="without a manifest: a model to serve, the name of an added one, SPEC or NAME=SPEC; may be repeated, and "
        "the first is the default",
    )  # fmt: skip
    parser.add_argument("-p", "--http-port", type=int, metavar="PORT", help="without a manifest: port to listen on")
    parser.add_argument("--http-addr", metavar="ADDR", help="without a manifest: address to listen on")
    parser.add_argument("-g", "--gpu-layers", type=int, metavar="N", help="without a manifest: layers on the GPU")
    parser.add_argument(
        "-c", "--context-size", "--ctx-size", type=int, metavar="N", help="without a manifest: tokens per request"
    )
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="without a manifest: CPU threads")
    parser.add_argument(
        "--require-api-key", action="store_true", default=None,
        help="without a manifest: require the API key in MULLAMA_API_KEY",
    )  # fmt: skip
    parser.add_argument(
        "--enable-search", nargs="?", const=BRAVE, metavar="URL",
        help="without a manifest: let the models search the web, by the SearXNG server at URL, or by Brave Search with "
        f"the key in {_BRAVE_KEY}",
    )  # fmt: skip
    parser.add_argument(
        "--search-embedding-model", metavar="SPEC",
        help="without a manifest: an embedding model that ranks the passages of a search",
    )  # fmt: skip


def serve(call: CommandContext) -> int:
    """Run the server until it is stopped; `wiring` builds it."""
    if call.options.file == "-":
        raise UsageError("serve watches a file and cannot read standard input", hint="name it with -f FILE")
    levels = log_levels(call.options.log_level or ())
    worker = _first_worker()
    try:
        return _serve(call, worker, levels)
    finally:
        if worker is not None:
            worker.end()


def _first_worker() -> SpawnedWorker | None:
    """Start the first worker: its imports take about as long as those of the server, and run beside them."""
    from mullama.runtime.worker.spawn import spawn_worker

    try:
        return spawn_worker("llamacpp")
    except OSError:  # the first load tries again and reports the reason
        return None


def log_levels(given: Iterable[str]) -> dict[str, str]:
    """Return the levels of --log-level by part, as `server.log.configure` takes them; the last of a part counts.

    Raises `UsageError` for an unknown part or level, with the nearest one.
    """
    levels: dict[str, str] = {}
    for text in given:
        from mullama.manifest.spec import Logs
        from mullama.names import suggest

        part, separator, level = text.rpartition("=")
        parts = vars(Logs().parts) if separator else ("",)
        for kind, value, known in (("part of the log", part, parts), ("level", level, LOG_LEVELS)):
            if value not in known:
                near = suggest(value, tuple(known))
                hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(known)}"
                raise UsageError(f"--log-level {text}: no {kind} is called {value!r}", hint=hint)
        levels[part] = level
    return levels


def _serve(call: CommandContext, worker: SpawnedWorker | None, levels: Mapping[str, str]) -> int:
    from mullama.cli.server.wiring import run_server

    start = _start_manifest(call)
    return run_server(
        start.loaded,
        origin=origin(start.loaded),
        records=start.records,
        env=call.env,
        held=call.options.held,
        problem=start.problem,
        default=start.default,
        added=start.added,
        worker=worker,
        log_levels=levels,
    )


def _start_manifest(call: CommandContext) -> StartManifest:
    settings = implicit_settings(call)
    if not settings and not call.options.implicit and (call.options.file is not None or has_manifest(call)):
        return start_manifest(call)
    if call.options.file is not None or (settings and has_manifest(call) and not call.options.implicit):
        named = ", ".join(_IMPLICIT_OPTIONS[name] for name in settings)
        raise UsageError(f"{named} cannot be used with a manifest", hint="set it in the manifest")
    return _implicit_start(call, settings)


def implicit_settings(call: CommandContext) -> dict[str, object]:
    """Return the given options that make an implicit manifest, by attribute."""
    return {name: value for name in _IMPLICIT_OPTIONS if (value := getattr(call.options, name, None)) is not None}


def implicit_arguments(settings: Mapping[str, object]) -> list[str]:
    """Return the arguments of `serve` for these settings."""
    arguments = ["--implicit"]
    for name, value in settings.items():
        if value is True:
            arguments.append(_IMPLICIT_OPTIONS[name])
            continue
        for item in value if isinstance(value, list) else [value]:
            arguments += [_IMPLICIT_OPTIONS[name], str(item)]
    return arguments


def implicit_manifest(call: CommandContext, settings: Mapping[str, object]) -> LoadedManifest:
    """Return the manifest of these settings. Without --model it has the models that were added at the default address,
    unless it is the one of that address, which serves them in any case."""
    return _implicit_start(call, settings).loaded


def _implicit_start(call: CommandContext, settings: Mapping[str, object]) -> StartManifest:
    """Return the implicit manifest. Models that the command line does not name are served as far as they can be."""
    from mullama.errors import ManifestError
    from mullama.manifest.dump import to_yaml
    from mullama.manifest.load import load_text
    from mullama.struct import replace

    chosen = _chosen_models(call, settings)
    default = chosen.default
    routes = {"routes": {"default": default}} if default in chosen.declared else {}
    ranking = _ranking_model(settings, chosen)
    text = to_yaml(_implicit_tree(settings, ranking) | {"models": {**chosen.declared, **ranking}} | routes)
    try:
        loaded = load_text(text, name="<the command line>", base_dir=str(call.folder), profiles=(), env=call.env)
    except ManifestError as error:  # its places are those of a generated text
        problems = tuple(replace(problem, place=None) for problem in error.problems)
        raise ManifestError(problems, document="the command line") from error
    if chosen.copied:
        from mullama.reconcile.overlay import combine

        route = {"default": {"route": default}} if default in chosen.copied else {}
        loaded = replace(loaded, manifest=combine(loaded.manifest, {**chosen.copied, **route}))
    return StartManifest(
        loaded=loaded,
        records=records_of(call, loaded),
        default="" if default in {*chosen.declared, *chosen.copied} else default,
        added=frozenset() if default else frozenset(loaded.manifest.models),
    )


def _ranking_model(settings: Mapping[str, object], chosen: _ChosenModels) -> dict[str, Mapping[str, object]]:
    """Return the model of --search-embedding-model by its name; {} without the option."""
    spec = settings.get("search_embedding_model")
    if not isinstance(spec, str):
        return {}
    if "enable_search" not in settings:
        raise UsageError("--search-embedding-model needs --enable-search", hint="it ranks the passages of a search")
    from mullama.names import model_name_of

    given, source = _named(spec)
    name = given or model_name_of(source)
    if name in {*chosen.declared, *chosen.copied}:
        raise UsageError(f"{name} is a model of its own already", hint="--search-embedding-model NAME=SPEC renames it")
    return {name: {"from": source, "task": "embedding", "search": False}}


def _search_block(value: object, ranking: Mapping[str, object]) -> dict[str, object]:
    """Return the block `search` of --enable-search. ranking: has the name of the embedding model, if there is one."""
    engine: dict[str, object] = {"provider": "searxng", "url": value}
    if value == BRAVE:
        engine = {"provider": "brave", "key": {"from_env": _BRAVE_KEY}}
    return {**engine, **({"embed": name} if (name := next(iter(ranking), None)) else {})}


def _implicit_tree(settings: Mapping[str, object], ranking: Mapping[str, object]) -> dict[str, object]:
    tree: dict[str, object] = {"mullama": "v1", "server": {"listen": [_implicit_address(settings)]}}
    if "enable_search" in settings:
        tree["search"] = _search_block(settings["enable_search"], ranking)
    if settings.get("require_api_key"):
        key = {"secret": {"from_env": "MULLAMA_API_KEY"}, "roles": ["infer", "admin", "read"]}
        tree["auth"] = {"keys": {"cli": key}}
    fields = {"context_size": "size", "threads": "threads"}
    context = {key: settings[name] for name, key in fields.items() if name in settings}
    defaults = {
        **({"context": context} if context else {}),
        **({"gpu": {"layers": settings["gpu_layers"]}} if "gpu_layers" in settings else {}),
        **({"search": True} if "enable_search" in settings else {}),
    }
    if defaults:
        tree["defaults"] = defaults
    return tree


def _implicit_address(settings: Mapping[str, object]) -> str:
    return f"{settings.get('http_addr') or DEFAULT_ADDRESS}:{settings.get('http_port', DEFAULT_PORT)}"


class _ChosenModels(NamedTuple):
    """The models of an implicit manifest."""

    declared: Mapping[str, Mapping[str, str]]
    """Models with the sources that the command line names."""
    copied: Mapping[str, Mapping[str, object]]
    """Entries of an overlay. They are no text of a manifest: a reference to a variable in them stays as it is."""
    default: str = ""
    """The first of --model, which is the default model; it may be one of the overlay of this address."""


def _chosen_models(call: CommandContext, settings: Mapping[str, object]) -> _ChosenModels:
    """Return the models of --model; without it, those that commands added at the default address.

    A SPEC is first looked up among the models that `pull` and `create` added: those of this address, which are served
    in any case and need no declaration, then those of the default address. Else it is a source.
    """
    from mullama.names import model_name_of

    own, elsewhere = overlay_of(call, settings), overlay_of(call, {})
    specs = settings.get("model")
    if not isinstance(specs, list):
        _refuse_settings("", settings)
        return _ChosenModels({}, _not_here(call, own, elsewhere))
    declared: dict[str, Mapping[str, str]] = {}
    copied: dict[str, Mapping[str, object]] = {}
    names = []
    for spec in specs:
        given, wanted = _named(spec)
        place = own if _find(wanted, own) else elsewhere
        if (known := _find(wanted, place)) is not None:
            _refuse_settings(known, settings)
        name = given or known or model_name_of(wanted)
        names.append(name)
        if known is None:
            declared[name] = {"from": wanted}
        elif place is not own or given:
            copied[name] = place[known]
    return _ChosenModels(declared, copied, names[0])


def _named(spec: str) -> tuple[str, str]:
    """Return the name and the source of `NAME=SPEC`, or "" and a source. A path and an address may contain `=`."""
    name, separator, source = spec.partition("=")
    is_source = name.startswith((".", "/", "~")) or "://" in name
    return ("", spec) if is_source or not separator else (name, source)


def _not_here(
    call: CommandContext, own: Mapping[str, object], elsewhere: Mapping[str, Mapping[str, object]]
) -> dict[str, Mapping[str, object]]:
    """Return the entries of the default address whose names this address does not have, and show their number."""
    from mullama.names import ModelName
    from mullama.units import counted

    names = {ModelName.parse(name).key for name in own}
    found = {name: tree for name, tree in elsewhere.items() if ModelName.parse(name).key not in names}
    if count := sum("route" not in tree for tree in found.values()):
        call.terminal.note(f"serving {counted(count, 'model')} added at {_implicit_address({})}")
    return found


def overlay_of(call: CommandContext, settings: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Return the models and routes that commands added at the address of these settings."""
    from mullama.folders import state_root
    from mullama.store.records import Records, instance_name

    return Records(state_root(call.env), instance_name((_implicit_address(settings),), None)).overlay()


def _find(name: str, overlay: Mapping[str, Mapping[str, object]]) -> str | None:
    """Return the model with this name, in its own spelling; None for a name that is no model's."""
    from mullama.errors import Invalid
    from mullama.names import ModelName

    try:
        key = ModelName.parse(name).key
    except Invalid:
        return None
    models = (own for own, tree in overlay.items() if "route" not in tree)
    return next((own for own in models if ModelName.parse(own).key == key), None)


def _refuse_settings(name: str, settings: Mapping[str, object]) -> None:
    """Raise for an option that a model with settings of its own would not follow. name: "" for all added models."""
    ignored = [_IMPLICIT_OPTIONS[key] for key in ("gpu_layers", "context_size", "threads") if key in settings]
    if ignored:
        which = f"{name!r}, which was added with settings of its own" if name else "models that commands add"
        raise UsageError(
            f"{', '.join(ignored)} cannot change {which}",
            hint="mullama create makes a model with other settings"
            + ("" if name else "; --model SPEC names one for these options"),
        )

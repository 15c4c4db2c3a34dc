"""Commands that read or write a manifest without a server: init, validate, config, schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import NAMES, load_manifest
from mullama.cli.app.context import CommandContext, Parser, manifest_options
from mullama.cli.app.exit_codes import DONE, INVALID
from mullama.cli.app.text_files import write_text
from mullama.cli.manifest.findings import CI_FORMATS, show_findings
from mullama.errors import ManifestError, NotFound, Refused, masked_tree
from mullama.manifest.dump import resolved_text
from mullama.problems import Problem
from mullama.units import counted

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.manifest.spec import Model

SCHEMA_NAME = "mullama.v1.schema.json"
_SHOWN = 48  # characters of a value in a table


def validate_options(parser: Parser) -> None:
    manifest_options(parser)
    parser.add_argument(
        "--machine", action="store_true", help="also check devices, layers and experts against this machine"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format", choices=("text", "json", *CI_FORMATS), default="text", help="output format (default: text)"
    )
    form.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")


def validate(call: CommandContext) -> int:
    """Check the manifest. The exit code is 4 if it has errors; all of them are listed."""
    try:
        loaded = load_manifest(call)
        if problems := _header_problems(call, loaded):
            raise ManifestError(problems)
        if call.options.machine:
            _check_machine(call, loaded)
    except ManifestError as error:
        if call.options.format == "text":
            raise
        _show_problems(call, error.problems)
        return INVALID
    manifest = loaded.manifest
    match call.options.format:
        case "text":
            call.terminal.line(
                f"{call.options.file or NAMES[0]} is valid: "
                f"{counted(len(manifest.models), 'model')}, {counted(len(manifest.routes), 'route')}"
            )
        case "json":
            call.terminal.json({"valid": True, "problems": [], "models": sorted(manifest.models)})
        case _:
            _show_problems(call, ())
    return DONE


def _show_problems(call: CommandContext, problems: tuple[Problem, ...]) -> None:
    if call.options.format == "json":
        call.terminal.json({"valid": False, "problems": [problem.tree() for problem in problems]})
        return
    from mullama.plan.findings import of_problems

    show_findings(
        call, call.options.format, "mullama validate", of_problems(problems), () if problems else ("manifest",)
    )


def _header_problems(call: CommandContext, loaded: LoadedManifest) -> tuple[Problem, ...]:
    """Return what the headers refuse, as far as the files are stored or in the lock file. Uses no network."""
    models = {name: model for name, model in loaded.manifest.models.items() if _depends_on_headers(model)}
    if not models:
        return ()
    from mullama.manifest.nodes import longest_prefix
    from mullama.reconcile.files import Files
    from mullama.reconcile.pins import read_lock
    from mullama.reconcile.stored_headers import file_problems

    some = loaded.manifest.model_copy(update={"models": models})
    files = Files.here(call.env).known([some], read_lock(loaded.path))
    return tuple(
        Problem(path, longest_prefix(path, loaded.places), text, hint)
        for name, field, text, hint in file_problems(some, files)
        for path in (f"models.{name}.{field}",)
    )


def _depends_on_headers(model: Model) -> bool:
    """Return True for a model with a setting that its files may refuse. Other files need not be read."""
    from mullama.names import PathRef, parse_source

    pool, experts = model.context.pool, model.gpu.experts
    return bool(
        model.draft
        or model.mmproj not in ("auto", "none")
        or model.requires
        or model.task == "transcription"
        or model.adapters
        or model.embedding.dimensions
        or (isinstance(pool, int) and model.context.size is None)
        or isinstance(experts, int)
        # The projector beside a file is found without a network.
        or (model.mmproj == "auto" and model.task == "chat" and isinstance(parse_source(model.from_), PathRef))
    )


def _check_machine(call: CommandContext, loaded: LoadedManifest) -> None:
    """Raise `ManifestError` for models that this machine cannot place as declared."""
    from mullama.manifest.nodes import longest_prefix
    from mullama.plan.fit import placement_problems
    from mullama.reconcile.files import Files
    from mullama.reconcile.machine import observe_machine
    from mullama.reconcile.pins import read_lock

    manifest = loaded.manifest
    files = Files.here(call.env).known([manifest], read_lock(loaded.path))
    found = placement_problems(manifest, files, observe_machine(manifest.hardware))
    problems = tuple(Problem(path, longest_prefix(path, loaded.places), text, hint) for path, text, hint in found)
    if problems:
        raise ManifestError(problems)


def config_options(parser: Parser) -> None:
    manifest_options(parser)
    parser.add_argument(
        "--format",
        choices=("yaml", "json"),
        default="yaml",
        help="output format (default: yaml, with units; json has bytes and seconds)",
    )
    parser.add_argument(
        "--origins",
        nargs="*",
        metavar="NAME",
        help="print the values of these models, or of all, with the layer and the line of each",
    )


def config(call: CommandContext) -> int:
    """Print the resolved manifest. It has references to secrets and no secret: secrets in addresses are masked."""
    if call.options.origins is not None:
        return _origins(call, call.options.origins)
    from mullama.manifest.tree import manifest_to_tree

    tree = manifest_to_tree(load_manifest(call).manifest)
    models = {name: {**model, "from": masked_tree(model["from"])} for name, model in tree["models"].items()}
    shown = {**tree, "sources": masked_tree(tree["sources"]), "models": models}
    if shown != tree:
        call.terminal.note("warning: secrets in addresses are masked as ***: from_env:NAME in a query keeps them out")
    if call.options.format == "json":
        call.terminal.json(shown)
    else:
        call.terminal.raw(resolved_text(shown))
    return DONE


def _origins(call: CommandContext, names: list[str]) -> int:
    """Print where each value of some models comes from; those that are built in are in the JSON only."""
    from mullama.manifest.provenance import origins
    from mullama.names import suggest
    from mullama.plan.model_values import model_values

    loaded = load_manifest(call)
    models = loaded.manifest.models
    for name in names:
        if name not in models:
            raise NotFound(f"the manifest has no model {name!r}", name=name, near=suggest(name, models))
    assert loaded.written is not None, "a manifest that is read from text"
    chosen = names or sorted(models)
    found = {name: model_values(models[name], origins(loaded.written, name)) for name in chosen}
    if call.options.format == "json":
        call.terminal.json({name: [value.tree() for value in values] for name, values in found.items()})
        return DONE
    rows = [
        (
            name,
            value.path,
            _short(value.value),
            value.layer + (f" {value.name}" if value.name and value.layer != "model" else ""),
            f"{value.place.file}:{value.place.line}" if value.place else "-",
            value.cost.value,
        )
        for name, values in found.items()
        for value in values
        if value.layer != "builtin"
    ]
    call.terminal.table(("MODEL", "FIELD", "VALUE", "FROM", "PLACE", "COST"), rows)
    return DONE


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def schema_options(parser: Parser) -> None:
    del parser  # no options


def schema(call: CommandContext) -> int:
    call.terminal.raw(schema_text())
    return DONE


def schema_text() -> str:
    """Return the text of the JSON Schema file."""
    from mullama.manifest.schema import json_schema
    from mullama.plan.changes import COSTS

    costs = {path: cost.value for path, cost in COSTS.items()}
    return json.dumps(json_schema(costs), ensure_ascii=False, indent=2) + "\n"


def init_options(parser: Parser) -> None:
    parser.add_argument("-f", "--file", default=NAMES[0], help=f"file to write (default: {NAMES[0]})")
    parser.add_argument(
        "--from",
        dest="source",
        default="builtin:tiny",
        metavar="SPEC",
        help="source of the first model, such as hf:org/repo:Q4_K_M (default: builtin:tiny)",
    )
    parser.add_argument("--name", default="chat", help="name of the first model (default: chat)")


def init(call: CommandContext) -> int:
    """Write a manifest to start from. An existing file is never overwritten."""
    from mullama.manifest.starter_manifest import starter
    from mullama.names import ModelName, parse_source

    source = str(parse_source(call.options.source))
    name = str(ModelName.parse(call.options.name))
    text = starter(name=name, source=source, schema=f"./{SCHEMA_NAME}")
    path = call.folder / call.options.file
    try:
        write_text(path, text, new=True)
    except FileExistsError as error:
        raise Refused(f"{path} already exists", hint="-f FILE writes another") from error
    call.terminal.line(f"wrote {call.options.file}; next: mullama diff, then mullama apply")
    call.terminal.line(f"for completion in an editor: mullama schema > {SCHEMA_NAME}")
    return DONE

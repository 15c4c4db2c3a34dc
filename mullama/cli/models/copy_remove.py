"""`mullama cp` and `mullama rm`: further names for models, and models that go. What the manifest owns stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext, Parser, json_option
from mullama.cli.app.exit_codes import DONE, REFUSED
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.errors import Refused
from mullama.units import size

if TYPE_CHECKING:
    from mullama.cli.api_client.discover import FoundServer


def cp_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("source", metavar="SOURCE", help="a model")
    parser.add_argument("destination", metavar="NAME", help="what the copy is called")


def cp(call: CommandContext) -> int:
    """A copy is independent: a change in the one does not touch the other. The files are shared."""
    options = call.options
    body = {"source": options.source, "destination": options.destination}
    ensure_server(call).client.post("/api/models/copy", body, within=600.0)
    call.terminal.line(f"copied {options.source} to {options.destination}")
    return DONE


def rm_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="models that pull, create or cp added")
    parser.add_argument("-f", "--force", "-y", "--yes", dest="force", action="store_true", help="do not ask")
    parser.add_argument("--keep-files", action="store_true", help="let the fetched files stay in the store")
    json_option(parser)


def rm(call: CommandContext) -> int:
    """Unload and remove; then the files that nothing refers to any more, if mullama fetched them."""
    server = ensure_server(call)
    models = [server.client.get(model_path(name)) for name in call.options.names]
    for model in models:  # all of them, so that nothing is asked or removed when one cannot go
        server.client.delete(model_path(model["name"]) + "?check=1")
    if not _agreed(call, models):
        call.terminal.note("nothing was changed")
        return REFUSED
    freed = 0
    for model in models:
        server.client.delete(model_path(model["name"]))
        freed += 0 if call.options.keep_files else _freed(call, server, str(model["source"]))
    if call.options.json:
        call.terminal.json({"removed": [model["name"] for model in models], "freed_bytes": freed})
    else:
        names = ", ".join(model["name"] for model in models)
        call.terminal.line(f"removed {names}, " + (f"{size(freed)} freed" if freed else "no file deleted"))
    return DONE


def _agreed(call: CommandContext, models: list[dict[str, Any]]) -> bool:
    if call.options.force:
        return True
    for model in models:
        call.terminal.line(f"{model['name']}  {model['source']}  {size(model['size'])}")
    if not call.terminal.interactive:
        raise Refused("rm removes models, and nobody can be asked here", hint="--force does it")
    return call.terminal.confirm("Remove?")


def _freed(call: CommandContext, server: FoundServer, source: str) -> int:
    """Bytes of the files of `source` that were deleted: only ours, only what nobody else refers to."""
    if server.record is None:
        return 0
    from mullama.cli.models.cache import forget_unused

    return forget_unused(call, source)

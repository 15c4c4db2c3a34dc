"""`mullama cp` and `mullama rm`: copy and remove models. Models of the manifest cannot be removed here."""

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
    parser.add_argument("source", metavar="SOURCE", help="a model or a route")
    parser.add_argument("destination", metavar="NAME", help="name of the copy")


def cp(call: CommandContext) -> int:
    """Copy the declaration of a model; later changes to one do not affect the other. Both share the files."""
    options = call.options
    body = {"source": options.source, "destination": options.destination}
    ensure_server(call).client.post("/api/models/copy", body, within=600.0)
    call.terminal.line(f"copied {options.source} to {options.destination}")
    return DONE


def rm_options(parser: Parser) -> None:
    instance_options(parser, other_f=True)
    parser.add_argument("names", nargs="+", metavar="NAME", help="models that pull, create or cp added")
    parser.add_argument("-f", "--force", "-y", "--yes", dest="force", action="store_true", help="do not ask")
    parser.add_argument("--keep-files", action="store_true", help="keep the downloaded files in the store")
    json_option(parser)


def rm(call: CommandContext) -> int:
    """Unload and remove models, then delete their files that nothing else refers to."""
    server = ensure_server(call)
    models = [server.client.get(model_path(name)) for name in call.options.names]
    for model in models:  # check all first: either all are removed or none
        server.client.delete(model_path(model["name"]) + "?check=1")
    if not _confirmed(call, models):
        call.terminal.note("nothing was changed")
        return REFUSED
    freed = 0
    for model in models:
        server.client.delete(model_path(model["name"]))
        freed += 0 if call.options.keep_files else _delete_files(call, server, str(model["source"]))
    if call.options.json:
        call.terminal.json({"removed": [model["name"] for model in models], "freed_bytes": freed})
    else:
        names = ", ".join(model["name"] for model in models)
        call.terminal.line(f"removed {names}, " + (f"{size(freed)} freed" if freed else "no file deleted"))
    return DONE


def _confirmed(call: CommandContext, models: list[dict[str, Any]]) -> bool:
    if call.options.force:
        return True
    for model in models:
        call.terminal.line(f"{model['name']}  {model['source']}  {size(model['size'])}")
    if not call.terminal.interactive:
        raise Refused("rm needs a confirmation, and this is not a terminal", hint="use --force")
    return call.terminal.confirm("Remove?")


def _delete_files(call: CommandContext, server: FoundServer, source: str) -> int:
    """Delete the unused files of a source; return the freed bytes. A remote server keeps its files."""
    if server.record is None:
        return 0
    from mullama.cli.models.cache import delete_unused

    return delete_unused(call, source)

"""`mullama pull`: download a model and add it to the server."""

from __future__ import annotations

from pathlib import Path

from mullama.cli.api_client.tasks import follow_task
from mullama.cli.app.context import CommandContext, Parser, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.models.upload import upload_files
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.names import PathRef, model_name_of, parse_source


def pull_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument(
        "source", metavar="SPEC", help="a short name, hf:org/repo[:QUANT], ollama:NAME, https://…, a path"
    )
    parser.add_argument("--name", help="name of the model (default: derived from SPEC)")
    parser.add_argument(
        "--force", action="store_true",
        help="look for a newer version, and download damaged files again",
    )  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress")
    json_option(parser)


def pull(call: CommandContext) -> int:
    """Download and verify the files that are missing, then add the model to the overlay."""
    options = call.options
    source = absolute_source(call, options.source)
    name = options.name or model_name_of(source)
    server = ensure_server(call)
    model = upload_files(call, server, {"from": source}, quiet=options.quiet or options.json)
    if model["from"] == source:
        lines = server.client.lines(
            "POST", "/api/models/pull", {"name": name, "from": source, "force": options.force, "stream": True}
        )
    else:
        lines = server.client.lines("PUT", model_path(name), {"model": model, "stream": True})
    follow_task(call, lines, quiet=options.quiet, as_json=options.json)
    if not options.json and not options.quiet:
        call.terminal.line(f"pulled {name}; try: mullama run {name}")
    return DONE


def absolute_source(call: CommandContext, source: str) -> str:
    """Return the source; a path becomes absolute, because the server runs in another folder."""
    if not isinstance(parse_source(source), PathRef):
        return source
    return str((call.folder / Path(source).expanduser()).absolute())

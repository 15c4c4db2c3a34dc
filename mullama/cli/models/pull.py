"""`mullama pull`: have a model's files here, and a model of its name in the server."""

from __future__ import annotations

from pathlib import Path

from mullama.cli.api_client.tasks import follow_task
from mullama.cli.app.context import CommandContext, Parser, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.models.upload import sent
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.names import PathRef, model_name_of, parse_source


def pull_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument(
        "source", metavar="SPEC", help="a short name, hf:org/repo[:QUANT], ollama:NAME, https://…, a path"
    )
    parser.add_argument("--name", help="what the model is called (default: made of SPEC)")
    parser.add_argument(
        "--force", action="store_true",
        help="ask the source again, and read the stored files through: what does not match is fetched anew",
    )  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    json_option(parser)


def pull(call: CommandContext) -> int:
    """Fetch, verify, and keep; what is here already is not fetched again."""
    options = call.options
    source = located(call, options.source)
    name = options.name or model_name_of(source)
    server = ensure_server(call)
    place = sent(call, server, {"from": source}, quiet=options.quiet or options.json)
    if place["from"] == source:
        lines = server.client.lines(
            "POST", "/api/models/pull", {"name": name, "from": source, "force": options.force, "stream": True}
        )
    else:
        lines = server.client.lines("PUT", model_path(name), {"model": place, "stream": True})
    follow_task(call, lines, quiet=options.quiet, as_json=options.json)
    if not options.json and not options.quiet:
        call.terminal.line(f"{name} is here; mullama run {name} asks it")
    return DONE


def located(call: CommandContext, source: str) -> str:
    """The source text; a path is made absolute, because the server works in another folder."""
    if not isinstance(parse_source(source), PathRef):
        return source
    return str((call.folder / Path(source).expanduser()).absolute())

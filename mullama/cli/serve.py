"""`mullama serve`: the server in the foreground, which applies the manifest and follows its file."""

from __future__ import annotations

import argparse

from mullama.cli.call import Call, Parser, Usage, manifest_options
from mullama.cli.locate import load_manifest, origin, records_of


def serve_options(parser: Parser) -> None:
    manifest_options(parser)
    # Used by apply: answer on the control socket, and wait there for the first manifest.
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)


def serve(call: Call) -> int:
    """Run until stopped; what the process is made of is put together in `wiring`."""
    from mullama.cli.wiring import run_server

    if call.options.file == "-":
        raise Usage("serve follows a file, not standard input", hint="-f FILE names it")
    loaded = load_manifest(call)
    return run_server(
        loaded,
        origin=origin(loaded),
        records=records_of(call, loaded),
        env=call.env,
        held=call.options.held,
    )

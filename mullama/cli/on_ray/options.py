"""The options of commands that can act on a cluster instead of a server."""

from __future__ import annotations

from mullama.cli.app.context import CommandContext, Parser, UsageError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def place_options(parser: Parser) -> None:
    """Add `--on` and `--address`."""
    parser.add_argument("--on", choices=("ray",), help="act on a cluster of Ray instead of a server of mullama")
    parser.add_argument(
        "--address",
        metavar="URL",
        help=f"dashboard of the cluster, for --on ray (default: RAY_DASHBOARD_ADDRESS, else {DEFAULT_ADDRESS})",
    )


def on_cluster(call: CommandContext, *without: str) -> bool:
    """Return True for a command on a cluster. without: options that have no meaning there.

    Raises `UsageError` for one of them, and for `--address` without `--on`.
    """
    options = call.options
    if getattr(options, "on", None) is None:
        if getattr(options, "address", None):
            raise UsageError("--address is for --on ray", hint="--host names a server of mullama")
        return False
    for name in ("host", "key_file", "ca_file", "cert_file", *without):
        if getattr(options, name, None):
            raise UsageError(f"--{name.replace('_', '-')} has no meaning with --on ray")
    return True


def refuse_place_as_target(names: tuple[str, ...], known: set[str]) -> None:
    """Raise `UsageError` for `--target ray`, which names a model and is often meant as a place."""
    if "ray" in names and "ray" not in known:
        raise UsageError(
            "--target names a model or a route, and the manifest has no 'ray'",
            hint="mullama apply --on ray applies the manifest to a cluster",
        )

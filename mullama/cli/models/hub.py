"""`mullama search`, `info` and `login`: query a hub. Nothing is downloaded."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.app.text_files import read_text
from mullama.errors import MullamaError, NotFound, TransferFailed
from mullama.names import HubRef
from mullama.struct import replace
from mullama.units import counted, size
from mullama.weights.choose import choose

if TYPE_CHECKING:
    from mullama.sources.huggingface import Repository
    from mullama.sources.settings import Settings


def search_options(parser: Parser) -> None:
    parser.add_argument("query", nargs="+", metavar="QUERY", help="words to search for")
    parser.add_argument("-n", "--limit", type=int, default=10, metavar="N", help="number of results (default: 10)")
    parser.add_argument("--all", action="store_true", help="also list repositories without GGUF files")
    parser.add_argument("-f", "--files", action="store_true", help="list the GGUF files of each repository")
    json_option(parser)


def search(call: CommandContext) -> int:
    """List repositories, the most downloaded first."""
    from mullama.reconcile.hub_models import repository_tree
    from mullama.sources import huggingface

    options = call.options
    settings = _settings(call)
    if not 1 <= options.limit <= 100:
        raise UsageError("--limit must be between 1 and 100")
    found: Iterable[Repository] = huggingface.search(
        " ".join(options.query), settings, limit=options.limit, every=options.all
    )
    found = tuple(found)
    described = {item.name: _described(item, settings) for item in found} if options.files else {}
    if options.json:
        call.terminal.json(
            {"results": [described[item.name][1] if described else repository_tree(item) for item in found]}
        )
        return DONE
    if options.files:
        for item in found:
            call.terminal.line(f"hf:{item.name}")
            full, tree = described[item.name]
            if full is None:
                call.terminal.line(f"  the files cannot be listed: {tree['error']}")
            else:
                _print_files(call, full)
    else:
        rows = ((f"hf:{item.name}", f"{item.downloads:,}", item.updated[:10] or "-") for item in found)
        call.terminal.table(("REPOSITORY", "DOWNLOADS", "UPDATED"), rows)
    call.terminal.line(counted(len(found), "result"))
    return DONE


def _described(item: Repository, settings: Settings) -> tuple[Repository | None, dict[str, Any]]:
    """Return a repository with its files and its tree; without the files where the hub does not give them."""
    from mullama.reconcile.hub_models import repository_tree
    from mullama.sources import huggingface

    try:
        full = huggingface.repository(HubRef(item.name), settings)
    except MullamaError as error:  # a private or disabled repository must not hide the others
        return None, {**repository_tree(item), "error": error.message}
    return full, repository_tree(full)


def info_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="REPO", help="org/repo, hf:org/repo, or a short name")
    json_option(parser)


def info(call: CommandContext) -> int:
    """Print the facts and files of a repository, with the file that a source without a name selects."""
    from mullama.reconcile.hub_models import hub_repository, repository_tree
    from mullama.sources import huggingface

    ref = hub_repository(call.options.source)
    found = huggingface.repository(ref, _settings(call))
    if call.options.json:
        call.terminal.json(repository_tree(found))
        return DONE
    call.terminal.line(f"hf:{found.name}")
    facts = (("Task", found.task), ("License", found.license), ("Downloads", f"{found.downloads:,}"),
             ("Likes", f"{found.likes:,}"), ("Updated", found.updated[:10]),
             ("Access", "gated: the owner must grant access" if found.gated else ""))  # fmt: skip
    for label, value in facts:
        if value:
            call.terminal.line(f"{label:<10}{value}")
    _print_files(call, found)
    return DONE


def _print_files(call: CommandContext, found: Repository) -> None:
    """Print the GGUF files with their sizes and mark the default ones."""
    default: tuple[str, ...] = ()
    try:
        default = choose([name for name, _ in found.files], repo=found.name).files
    except MullamaError as error:
        call.terminal.line(f"  no default: {error.message}")
    for name, count in found.files:
        mark = "  [default]" if name in default else ""
        call.terminal.line(f"  {name}  {size(count) if count else '?'}{mark}")


def _settings(call: CommandContext) -> Settings:
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.files import Files

    return Files.here(call.env).settings(Manifest(mullama="v1"))


def login_options(parser: Parser) -> None:
    parser.add_argument("--token-file", metavar="FILE", help="read the token from this file instead of the terminal")
    parser.add_argument("--remove", action="store_true", help="delete the saved token")


def login(call: CommandContext) -> int:
    """Save a token for gated models where the hub's own tools look for it.

    The token is read from a prompt or a file, because other users can see the arguments of a process.
    """
    from mullama.sources.huggingface import hub_endpoint, token_path, user

    path = Path(token_path())
    if call.options.remove:
        saved = path.exists()
        path.unlink(missing_ok=True)
        call.terminal.line("the saved token is deleted" if saved else "no token is saved")
        return DONE
    token = _token(call)
    hub = replace(_settings(call).hub, token=token, token_from="the input")
    try:
        outcome = f"logged in as {user(hub)}"
    except (NotFound, TransferFailed):  # a mirror need not know users
        outcome = f"warning: {hub_endpoint(hub)} does not check tokens, so this one is saved unchecked"
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(token)
    path.chmod(0o600)
    call.terminal.line(f"{outcome}; the token is in {path}")
    return DONE


def _token(call: CommandContext) -> str:
    if call.options.token_file:
        text = read_text(call.folder / Path(call.options.token_file).expanduser())
    elif call.terminal.interactive:
        text = getpass.getpass("token (not shown): ")
    else:
        text = call.terminal.source.readline()
    token = text.strip()
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise UsageError("this is not a token", hint="create one at https://huggingface.co/settings/tokens")
    return token

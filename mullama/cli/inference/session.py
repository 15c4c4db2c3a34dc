"""`mullama session`: list, show, save, continue and delete the conversations of this user."""

from __future__ import annotations

import json
import time

from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.app.text_files import read_text
from mullama.cli.inference.chat import talk
from mullama.cli.inference.conversation import Conversation
from mullama.cli.inference.session_exchange import exported, imported
from mullama.cli.inference.session_log import ChatLog
from mullama.cli.inference.session_store import ChatStore, SessionKeeper, list_sessions, session_name
from mullama.cli.models.load import resolve_model
from mullama.cli.server.ensure import ensure_server, instance_options
from mullama.errors import Invalid, NotFound
from mullama.struct import replace

ACTIONS = ("list", "show", "save", "load", "delete")


def session_options(parser: Parser) -> None:
    parser.add_argument(
        "action", choices=ACTIONS,
        help="list them, show one, save one from a file, load one to continue it, or delete one",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", metavar="NAME", help="the name of a conversation, as list prints it")
    parser.add_argument(
        "source", nargs="?", metavar="FILE",
        help="for save: a conversation as the web page and show --json write it, or - for standard input "
        "(default: the conversation without a name that changed last)",
    )  # fmt: skip
    instance_options(parser)
    json_option(parser)


def session(call: CommandContext) -> int:
    options = call.options
    store = ChatStore(call.env)
    if options.action == "list":
        if options.name is not None:
            raise UsageError("session list takes no name", hint="mullama session show NAME shows one")
        return _list(call, store)
    if options.name is None:
        raise UsageError(f"session {options.action} needs the name of a conversation", hint="mullama session list")
    if options.source is not None and options.action != "save":
        raise UsageError(f"session {options.action} takes one name")
    match options.action:
        case "save":
            return _save(call, store)
        case "show":
            return _show(call, store.find(session_name(options.name, any_id=True)))
        case "load":
            return _load(call, store)
        case _:
            return _delete(call, store)


def _list(call: CommandContext, store: ChatStore) -> int:
    if not call.options.json:
        list_sessions(call.terminal, store)
        return DONE
    logs, damaged = store.scan()
    trees = [
        {"name": log.id, "model": log.model, "turns": len(log.turns), "changed": log.changed, "title": log.title,
         "path": str(store.path(log.id))}
        for log in sorted(logs, key=lambda log: -log.changed)
    ]  # fmt: skip
    files = [{"path": str(file.path), "reason": file.reason} for file in damaged]
    call.terminal.json({"sessions": trees, "damaged": files})
    return DONE


def _show(call: CommandContext, log: ChatLog) -> int:
    if call.options.json:
        call.terminal.json(exported(log))
        return DONE
    call.terminal.line(f"{log.id} with {log.model}")
    if log.system is not None:
        call.terminal.raw(f"system: {log.system}\n")
    for turn in log.turns:
        files = f"  [{'; '.join(turn.files)}]" if turn.files else ""
        answer = turn.answer or f"(no answer: {turn.note or 'it was stopped'})"
        call.terminal.raw(f"\n>>> {turn.question}{files}\n{answer}\n")
    return DONE


def _save(call: CommandContext, store: ChatStore) -> int:
    """Save a conversation of a file, or name the last one without a name."""
    name = session_name(call.options.name)
    store.require_free(name)
    log = _latest(store) if call.options.source is None else _read(call, name)
    store.save(replace(log, id=name, changed=time.time()))
    call.terminal.line(f"saved as {name}: {log.title}")
    return DONE


def _latest(store: ChatStore) -> ChatLog:
    unnamed = [log for log in store.all() if not log.name]
    if not unnamed:
        raise NotFound(
            "there is no conversation without a name",
            hint="mullama chat --save-session NAME saves one; mullama session save NAME FILE reads one",
        )
    return max(unnamed, key=lambda log: log.changed)


def _read(call: CommandContext, name: str) -> ChatLog:
    source = call.options.source
    text = call.terminal.source.read() if source == "-" else read_text(call.folder / source)
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{source} is no JSON: {error}") from error
    return imported(tree, name)


def _load(call: CommandContext, store: ChatStore) -> int:
    """Continue a conversation line by line, and save it after each answer. One without a name keeps its id."""
    log = store.find(session_name(call.options.name, any_id=True))
    server = ensure_server(call)
    conversation = Conversation(model=log.model)
    conversation.restore(log)
    conversation.use(resolve_model(call, server, log.model))
    return talk(call, server, conversation, SessionKeeper(store, log.id, continued=log.id))


def _delete(call: CommandContext, store: ChatStore) -> int:
    name = session_name(call.options.name, any_id=True)
    if not store.path(name).exists():
        store.find(name)
    store.delete(name)
    call.terminal.line(f"deleted {name}")
    return DONE

"""Conversations in the exchange format of the web page, `mullama.conversations/1`. Pure.

The page keeps a tree of messages; a saved conversation is one branch of it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from mullama.chat.media.formats import KINDS, format_of
from mullama.cli.inference.conversation import PARAMETERS
from mullama.cli.inference.session_log import CHAT_FORMAT, ChatLog, ChatTurn
from mullama.codec import from_tree
from mullama.errors import Invalid
from mullama.struct import Struct, field

EXCHANGE_FORMAT = "mullama.conversations/1"


class _Medium(Struct, frozen=True):
    data: str = ""


class _Message(Struct, frozen=True, kw_only=True):
    parent: str | None = None
    role: str = ""
    content: str = ""
    thinking: str = ""
    media: tuple[_Medium, ...] = ()
    ended: str = ""
    error: str = ""


class _Conversation(Struct, frozen=True, kw_only=True):
    model: str = ""
    changed: float = 0.0
    system: str = ""
    options: dict[str, str] = field(default_factory=dict)
    messages: dict[str, _Message] = field(default_factory=dict)
    leaf: str | None = None


class _Exchange(Struct, frozen=True, kw_only=True):
    conversations: tuple[_Conversation, ...]


def exported(log: ChatLog) -> dict[str, Any]:
    """Return a conversation in the exchange format."""
    messages: dict[str, dict[str, Any]] = {}
    last: str | None = None
    for index, turn in enumerate(log.turns):
        for role, message in (("user", _question(turn)), ("assistant", _answer(log, turn))):
            id = f"{role}-{index + 1}"
            messages[id] = {"id": id, "parent": last, "role": role, **message}
            last = id
    conversation = {
        "id": log.id, "title": log.name or log.title, "changed": round(log.changed * 1000), "model": log.model,
        "system": log.system or "",
        "options": {name: _option(value) for name, value in log.parameters.items()},
        "messages": messages, "leaf": last,
    }  # fmt: skip
    return {"format": EXCHANGE_FORMAT, "conversations": [conversation]}


def imported(tree: Any, id: str) -> ChatLog:
    """Return the one conversation of a file, in the exchange format or as it is kept on disk.

    Raises `Invalid` for another format, a damaged conversation, and more or less than one.
    """
    format = tree.get("format") if isinstance(tree, Mapping) else None
    if format == CHAT_FORMAT:
        return from_tree(ChatLog, {**tree, "id": id}, "conversation")
    if format != EXCHANGE_FORMAT:
        raise Invalid(
            f"the file is no conversation: its format is neither {EXCHANGE_FORMAT!r} nor {CHAT_FORMAT!r}",
            hint="the web page and mullama session show --json write such files",
        )
    found = from_tree(_Exchange, tree, "the file").conversations
    if len(found) != 1:
        raise Invalid(f"the file has {len(found)} conversations, and a name is for one", hint="export one: Export this")
    one = found[0]
    return ChatLog(
        id=id, model=one.model, changed=one.changed / 1000, system=one.system or None,
        parameters=dict(_parameters(one.options)), turns=tuple(_turns(one)),
    )  # fmt: skip


def _question(turn: ChatTurn) -> dict[str, Any]:
    return {"content": turn.question, "media": [{"type": _type(one), "data": one} for one in turn.media]}


def _answer(log: ChatLog, turn: ChatTurn) -> dict[str, Any]:
    failed = {"error": turn.note} if turn.failed else {}
    ended = {"ended": "stopped"} if turn.note == "stopped" else {}
    return {"content": turn.answer, "thinking": turn.thinking, "model": log.model, **ended, **failed}


def _type(medium: str) -> str:
    """Return the media type of an image or a sound in base64."""
    try:
        name = format_of(base64.b64decode(medium[:64] + "=" * (-len(medium[:64]) % 4)))
    except ValueError:  # no base64
        name = None
    return f"{KINDS[name]}/{name}" if name else "image/unknown"


def _option(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _parameters(options: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield the options that are parameters of a conversation on the terminal."""
    for name, text in options.items():
        kind = PARAMETERS.get(name)
        if kind is None or not text.strip():
            continue
        if name == "stop":
            yield name, text.split("\n")
            continue
        try:
            yield name, kind(text)
        except ValueError as error:
            raise Invalid(f"the conversation has {name}: {text[:40]!r}, which is not a number") from error


def _turns(conversation: _Conversation) -> Iterator[ChatTurn]:
    """Yield the questions and answers of the shown branch. Raises `Invalid` for a message that is no part of one."""
    question: _Message | None = None
    for message in _branch(conversation):
        match message.role:
            case "user":
                if question is not None:
                    yield _turn(question, _Message())
                question = message
            case "assistant" if question is not None:
                yield _turn(question, message)
                question = None
            case _:
                raise Invalid(
                    f"the conversation has a message of the role {message.role!r} that follows no question",
                    hint="a conversation on the terminal has questions and answers only, no results of tools",
                )
    if question is not None:
        yield _turn(question, _Message())


def _turn(question: _Message, answer: _Message) -> ChatTurn:
    return ChatTurn(
        question=question.content, media=tuple(one.data for one in question.media),
        files=tuple(f"{_type(one.data).partition('/')[0]}" for one in question.media),
        answer=answer.content, thinking=answer.thinking, note=answer.error or answer.ended, failed=bool(answer.error),
    )  # fmt: skip


def _branch(conversation: _Conversation) -> list[_Message]:
    """Return the messages from the first one to the end of the shown branch."""
    found: list[_Message] = []
    at = conversation.leaf
    while at is not None:
        message = conversation.messages.get(at)
        if message is None:
            raise Invalid(f"the conversation lacks its message {at[:80]!r}")
        if len(found) == len(conversation.messages):
            raise Invalid(f"the message {at[:80]!r} of the conversation is below itself")
        found.append(message)
        at = message.parent
    return found[::-1]

"""`mullama run`: ask a model one question and stream the answer; without a question, start a conversation."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options
from mullama.cli.app.exit_codes import DONE
from mullama.cli.inference.chat import talk
from mullama.cli.inference.options import (
    conversation_of,
    conversation_options,
    loaded_session,
    session_keeper,
    session_options,
)
from mullama.cli.inference.stream import StreamedAnswer, answered, ask, counts, show, turn_of
from mullama.cli.inference.tokens import embeddings_of
from mullama.cli.models.load import declared_fields, default_model, resolve_model
from mullama.cli.on_fleet.serving import serving_host
from mullama.cli.server.ensure import ensure_server


def run_options(parser: Parser) -> None:
    manifest_options(parser)
    conversation_options(parser)
    session_options(parser)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help="a model, a route, or a source to download (default: the default model); with --load-session, a single "
        "argument is the prompt",
    )  # fmt: skip
    parser.add_argument(
        "prompt", nargs="*", help="the question, after piped input; without either, start a conversation"
    )
    parser.add_argument(
        "-m", "--model", dest="named", metavar="NAME", help="the model; MODEL is then the first word of the prompt"
    )
    parser.add_argument(
        "-i",
        "--image",
        action="append",
        default=[],
        metavar="PATH",
        help="add an image or a sound to the question, for a model that reads it; may be repeated",
    )
    parser.add_argument("--no-stream", action="store_true", help="print the answer when it is complete")
    parser.add_argument("--dimensions", type=int, metavar="N", help="for an embedding model: numbers in the embedding")
    parser.add_argument(
        "--truncate", nargs="?", type=_boolean, const=True, metavar="true|false",
        help="for an embedding model: cut a text that is too long (default: true)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(call: CommandContext) -> int:
    """Ask one question; an embedding model returns the embedding of the prompt. Without a prompt, start the REPL."""
    name, prompt = _model_and_prompt(call)
    saved, keeper = loaded_session(call), session_keeper(call)
    asked = name or (saved.model if saved else None)
    server = serving_host(call, asked, declared_fields(call)) or ensure_server(call)
    conversation = conversation_of(call, asked or default_model(server), saved)
    if prompt is None and call.options.image:
        raise UsageError("-i needs a question", hint='mullama run MODEL "What is this?" -i FILE')
    model = resolve_model(call, server, conversation.model, declared_fields(call))
    conversation.use(model)
    if prompt is None:
        return talk(call, server, conversation, keeper)
    if _is_embedding_model(call, model):
        if saved or keeper:
            raise UsageError(
                f"{model['name']} is an embedding model, which has no conversation",
                hint="leave out --load-session and --save-session",
            )
        return _print_embedding(call, server, conversation.model, prompt)
    answer = StreamedAnswer()
    turn = turn_of(call, prompt, tuple(call.options.image), reads=conversation.reads_media)
    pieces = ask(server, conversation.body(turn.question, turn.media), answer)
    if call.options.json or call.options.no_stream:
        for _ in pieces:
            pass
    else:
        show(call.terminal, pieces, thinking=_show_thinking(call))
    _print_end(call, answer)
    if keeper is not None:
        conversation.add(answered(turn, answer))
        keeper.keep(conversation)
    return DONE


def _model_and_prompt(call: CommandContext) -> tuple[str | None, str | None]:
    """Return the name of the model and the prompt, each None when it is not given.

    Without -m the first argument is the model. A conversation that is continued has one, so a single argument is then
    the prompt.
    """
    options = call.options
    words = [] if options.model is None else [options.model, *options.prompt]
    if options.named is not None or (options.load_session is not None and len(words) == 1):
        return options.named, _prompt(call, words)
    return options.model, _prompt(call, options.prompt)


def _prompt(call: CommandContext, words: list[str]) -> str | None:
    """Return the piped input followed by the words; None on a terminal without words."""
    source = call.terminal.source
    if source.isatty() and not words and not call.options.json:
        return None
    piped = "" if source.isatty() and words != ["-"] else source.read()
    prompt = "\n\n".join(part for part in (piped, " ".join(words) if words != ["-"] else "") if part.strip())
    if not prompt:
        raise UsageError("the prompt is empty", hint='mullama run MODEL "a question", or pipe one in')
    return prompt


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def _is_embedding_model(call: CommandContext, model: Mapping[str, Any]) -> bool:
    """True for an embedding model; raise `UsageError` for options of embeddings with another model."""
    if "completion" not in model["capabilities"] and "embedding" in model["capabilities"]:
        return True
    for name in ("dimensions", "truncate"):
        if getattr(call.options, name) is not None:
            raise UsageError(f"--{name} is for embedding models, and {model['name']} generates text")
    return False


def _print_embedding(call: CommandContext, server: FoundServer, model: str, text: str) -> int:
    """Print the embedding as a JSON array, as Ollama's run does."""
    options = call.options
    answer = embeddings_of(server, model, [text], dimensions=options.dimensions, truncate=options.truncate)
    call.terminal.raw(json.dumps(answer["embeddings"][0]) + "\n")
    return DONE


def _show_thinking(call: CommandContext) -> bool:
    """True on a terminal, and elsewhere when --think asks for it."""
    return not call.options.hidethinking and (call.terminal.live or call.options.think not in (None, "false"))


def _print_end(call: CommandContext, answer: StreamedAnswer) -> None:
    last, terminal = answer.last, call.terminal
    if call.options.json:
        tree = {
            "model": last.get("model"),
            "content": answer.text,
            **({"thinking": answer.thinking} if answer.thinking else {}),
            "done_reason": last.get("done_reason"),
            "prompt_tokens": int(last.get("prompt_eval_count") or 0),
            "tokens": int(last.get("eval_count") or 0),
            "seconds": float(last.get("eval_duration") or 0) / 1e9,
        }
        terminal.raw(json.dumps(tree, ensure_ascii=False) + "\n")
    else:
        terminal.raw((answer.text if call.options.no_stream else "") + "\n")
    if call.options.stats:
        terminal.note(counts(last))

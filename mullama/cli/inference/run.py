"""`mullama run`: one question to one model, answered as it is made; without a question, a conversation."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options
from mullama.cli.app.exit_codes import DONE
from mullama.cli.inference.chat import talk
from mullama.cli.inference.options import conversation_of, conversation_options
from mullama.cli.inference.stream import StreamedAnswer, ask, counts, pictures, require_possible, show
from mullama.cli.inference.tokens import vectors_of
from mullama.cli.models.load import declared_by, default_model, present
from mullama.cli.server.ensure import ensure_server


def run_options(parser: Parser) -> None:
    manifest_options(parser)
    conversation_options(parser)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help="a model or a route; or a source, which is fetched first (default: the default model)",
    )  # fmt: skip
    parser.add_argument("prompt", nargs="*", help="what to ask, after what is piped in; neither: a conversation")
    parser.add_argument(
        "-m", "--model", dest="named", metavar="NAME", help="the model, and MODEL is a word of the prompt"
    )
    parser.add_argument("-i", "--image", action="append", default=[], metavar="PATH", help="a picture to look at")
    parser.add_argument("--no-stream", action="store_true", help="print the answer once it is whole")
    parser.add_argument("--dimensions", type=int, metavar="N", help="of a model that makes vectors: only N numbers")
    parser.add_argument(
        "--truncate", nargs="?", type=_truth, const=True, metavar="true|false",
        help="of a model that makes vectors: cut a text that is too long (default: true)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(call: CommandContext) -> int:
    """Ask once; a model that makes vectors gives the prompt's. Without a prompt, talk."""
    name, prompt = _asked(call)
    if name is not None:
        require_possible(call, name)
    server = ensure_server(call)
    conversation = conversation_of(call, name or default_model(server))
    if prompt is None:
        return talk(call, server, conversation)
    model = present(call, server, conversation.model, declared_by(call.options))
    conversation.model = model["name"]
    if _makes_vectors(call, model):
        return _vector(call, server, conversation.model, prompt)
    answer = StreamedAnswer()
    pieces = ask(server, conversation.body(prompt, pictures(call, prompt, tuple(call.options.image))), answer)
    if call.options.json or call.options.no_stream:
        for _ in pieces:
            pass
    else:
        show(call.terminal, pieces, thinking=_shows_thinking(call))
    _finish(call, answer)
    return DONE


def _asked(call: CommandContext) -> tuple[str | None, str | None]:
    """The model that is named, if one is, and the prompt; None where a person sits at the terminal and has none yet."""
    options = call.options
    if options.named is None:
        return options.model, _prompt(call, options.prompt)
    first = [options.model] if options.model is not None else []
    return options.named, _prompt(call, [*first, *options.prompt])


def _prompt(call: CommandContext, words: list[str]) -> str | None:
    """What is piped in, then the words; None where a person sits at the terminal and has said nothing."""
    source = call.terminal.source
    if source.isatty() and not words and not call.options.json:
        return None
    piped = "" if source.isatty() and words != ["-"] else source.read()
    prompt = "\n\n".join(part for part in (piped, " ".join(words) if words != ["-"] else "") if part.strip())
    if not prompt:
        raise UsageError("there is no prompt", hint='mullama run MODEL "a question", or pipe one in')
    return prompt


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def _makes_vectors(call: CommandContext, model: Mapping[str, Any]) -> bool:
    """Whether the model answers with vectors; what is said of vectors is refused for one that does not."""
    if "completion" not in model["capabilities"] and "embedding" in model["capabilities"]:
        return True
    said = [name for name in ("dimensions", "truncate") if getattr(call.options, name) is not None]
    if said:
        raise UsageError(f"--{said[0]} is for models that make vectors, and {model['name']} answers with text")
    return False


def _vector(call: CommandContext, server: FoundServer, model: str, text: str) -> int:
    """The vector as a JSON array, which is how Ollama's run prints it."""
    options = call.options
    answer = vectors_of(server, model, [text], dimensions=options.dimensions, truncate=options.truncate)
    call.terminal.raw(json.dumps(answer["embeddings"][0]) + "\n")
    return DONE


def _shows_thinking(call: CommandContext) -> bool:
    """Thoughts are for eyes, or for who asked for them."""
    return not call.options.hidethinking and (call.terminal.live or call.options.think not in (None, "false"))


def _finish(call: CommandContext, answer: StreamedAnswer) -> None:
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

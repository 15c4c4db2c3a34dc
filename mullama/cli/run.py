"""`mullama run`: one question to one model, answered on standard output as it is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mullama.cli.call import Call, Parser, Usage, manifest_options, server_options
from mullama.cli.exits import DONE
from mullama.cli.locate import require
from mullama.errors import EngineFailed, Unavailable


def run_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    parser.add_argument("model", help="a model or a route of the manifest")
    parser.add_argument("prompt", nargs="*", help="what to ask; - or nothing reads standard input")
    parser.add_argument("--system", metavar="TEXT", help="a system prompt instead of the manifest's")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="N", help="at most so many tokens")
    parser.add_argument("-t", "--temperature", type=float, metavar="T", help="0 always takes the likeliest token")
    parser.add_argument("--stats", action="store_true", help="tell tokens and speed on stderr")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(call: Call) -> int:
    body = _request(call)
    last: dict[str, Any] = {}
    text: list[str] = []
    for piece in _pieces(require(call).client.lines("POST", "/api/chat", body)):
        content = (piece.get("message") or {}).get("content") or ""
        text.append(content)
        if not call.options.json:
            call.terminal.raw(content)
        last = piece
    _finish(call, "".join(text), last)
    return DONE


def _request(call: Call) -> dict[str, Any]:
    options = call.options
    messages = [{"role": "system", "content": options.system}] if options.system is not None else []
    messages.append({"role": "user", "content": _prompt(call)})
    sampling = {"num_predict": options.max_tokens, "temperature": options.temperature}
    chosen = {name: value for name, value in sampling.items() if value is not None}
    return {"model": options.model, "messages": messages, "stream": True, "options": chosen}


def _prompt(call: Call) -> str:
    words = call.options.prompt
    if words and words != ["-"]:
        return " ".join(words)
    if not words and call.terminal.source.isatty():
        raise Usage("there is no prompt", hint='mullama run MODEL "a question", or pipe one in')
    return call.terminal.source.read()


def _pieces(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pieces of the answer; an error in the middle, or an end without `done`, is an error here."""
    done = False
    for line in lines:
        if "error" in line:
            raise EngineFailed(f"the answer broke off: {line['error']}")
        yield line
        done = bool(line.get("done"))
    if not done:
        raise Unavailable("the server ended the answer in the middle")


def _finish(call: Call, text: str, last: dict[str, Any]) -> None:
    tokens, spent = int(last.get("eval_count") or 0), float(last.get("eval_duration") or 0) / 1e9
    prompt_tokens = int(last.get("prompt_eval_count") or 0)
    reason = last.get("done_reason")
    if call.options.json:
        tree = {"model": last.get("model"), "content": text, "done_reason": reason}
        call.terminal.raw(
            json.dumps(tree | {"prompt_tokens": prompt_tokens, "tokens": tokens, "seconds": spent}, ensure_ascii=False)
            + "\n"
        )
    else:
        call.terminal.raw("\n")
    if call.options.stats:
        speed = f", {tokens / spent:.1f} tokens/s" if spent else ""
        call.terminal.note(f"{prompt_tokens} prompt tokens, {tokens} tokens in {spent:.2f} s{speed} ({reason})")

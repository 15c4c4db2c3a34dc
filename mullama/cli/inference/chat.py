"""`mullama chat`: a conversation on the terminal, line by line, with commands that begin with a slash."""

from __future__ import annotations

import shlex
from contextlib import closing

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.api_client.tasks import follow_task
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options
from mullama.cli.app.exit_codes import DONE, as_ours, explain
from mullama.cli.inference.conversation import Conversation, think_level
from mullama.cli.inference.line_editor import keys_kept, read_line, unechoed
from mullama.cli.inference.options import conversation_of, conversation_options
from mullama.cli.inference.stream import StreamedAnswer, ask, counts, pictures, show
from mullama.cli.models.load import declared_by, default_model, present
from mullama.cli.server.ensure import ensure_server, model_path
from mullama.errors import MullamaError

HELP = """\
  /set parameter NAME VALUE   temperature, top_k, top_p, min_p, seed, num_predict, num_ctx, stop …
  /set system TEXT            another system prompt
  /set history | nohistory    send along what was said, or not
  /set format json | SCHEMA   /set noformat
  /set think [LEVEL]          /set nothink
  /set verbose | quiet        tell tokens and speed, or not
  /show info | license | modelfile | parameters | system | template
  /load MODEL                 talk to another model
  /save MODEL                 keep this conversation as a model
  /clear                      forget what was said
  /bye                        end; /exit and /quit too
  /? [set | show]             this help
  \"\"\"                         begins a text of several lines, and ends it
"""
_INFO = ("name", "family", "parameter_size", "quantization", "context_size", "capabilities", "source")
_ENDS = ("/bye", "/exit", "/quit", "\\exit")
# Commands of other terminals, in the words of this one.
_SHORT = {
    "/system": "system", "/temperature": "parameter temperature", "/topk": "parameter top_k",
    "/topp": "parameter top_p",
}  # fmt: skip
_BACKSLASHED = {f"\\{name[1:]}": name for name in (*_SHORT, "/help", "/clear")}


def chat_options(parser: Parser) -> None:
    manifest_options(parser)
    conversation_options(parser)
    parser.add_argument("-m", "--model", dest="named", metavar="NAME", help="the same as MODEL")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model or a route (default: the default model)")


def chat(call: CommandContext) -> int:
    server = ensure_server(call)
    return talk(call, server, conversation_of(call, call.options.named or call.options.model or default_model(server)))


def talk(call: CommandContext, server: FoundServer, conversation: Conversation) -> int:
    """Read, answer, until the end of the input or /bye."""
    conversation.model = present(call, server, conversation.model, declared_by(call.options))["name"]
    repl = Repl(call, server, conversation)
    if call.terminal.interactive:
        call.terminal.line(f"{conversation.model}: /? shows the commands, /bye ends")
    with keys_kept(call.terminal):
        while (text := repl.read()) is not None and text.strip() not in _ENDS:
            try:
                with unechoed(call.terminal):
                    repl.take(text)
            except KeyboardInterrupt:
                call.terminal.note("interrupted")
            except (MullamaError, OSError) as error:
                for line in explain(as_ours(error)):
                    call.terminal.note(line)
    return DONE


class Repl:
    """One conversation at one terminal."""

    def __init__(self, call: CommandContext, server: FoundServer, conversation: Conversation) -> None:
        self._call, self._server, self._conversation = call, server, conversation
        self._terminal = call.terminal

    def read(self) -> str | None:
        '''One line, or the lines between two `"""`; None at the end of the input.'''
        line = read_line(self._terminal, ">>> ")
        if line is None or not line.lstrip().startswith('"""'):
            return line
        text = line.lstrip()[3:]
        while not text.rstrip().endswith('"""'):
            more = read_line(self._terminal, "... ")
            if more is None:
                return text
            text += "\n" + more
        return text.rstrip()[:-3].strip("\n")

    def take(self, text: str) -> None:
        """Carry out a command, or ask the model."""
        word, _, rest = text.strip().partition(" ")
        word = _BACKSLASHED.get(word, word)
        commands = {
            "/set": self._set, "/show": self._show, "/load": self._load, "/save": self._save, "/clear": self._clear,
            "/?": self._help, "/help": self._help,
        }  # fmt: skip
        if word in commands:
            commands[word](rest.strip())
        elif word in _SHORT:
            self._set(f"{_SHORT[word]} {rest.strip()}")
        elif word.startswith("/") and "/" not in word[1:] and "." not in word:
            raise UsageError(f"{word} is no command", hint="/? shows them")
        elif text.strip():
            self._ask(text)

    def _ask(self, prompt: str) -> None:
        """Ctrl-C ends the answer; what came of it is remembered."""
        conversation, answer = self._conversation, StreamedAnswer()
        body = conversation.body(prompt, pictures(self._call, prompt))
        try:
            with closing(ask(self._server, body, answer)) as pieces:  # type: ignore[type-var]
                show(self._terminal, pieces, thinking=conversation.show_thinking)
        except KeyboardInterrupt:
            self._terminal.note("")
        conversation.add(prompt, answer.text)
        self._terminal.raw("\n")
        if conversation.verbose and answer.last:
            self._terminal.note(counts(answer.last))

    def _set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        conversation = self._conversation
        match what:
            case "parameter":
                name, *values = _words(value) or [""]
                conversation.set_parameter(name, *values)
                if name in ("num_ctx", "num_gpu"):
                    self._terminal.note(f"{name} holds for the model that /save makes; the one in memory keeps its own")
            case "system":
                conversation.system = value.strip().removeprefix('"""').removesuffix('"""')
            case "history" | "nohistory":
                conversation.remember = what == "history"
            case "wordwrap" | "nowordwrap":
                self._terminal.line("lines are never wrapped here")
                return
            case "format" | "noformat":
                from mullama.cli.inference.conversation import response_format

                conversation.format = response_format(value.strip() or "json") if what == "format" else None
            case "verbose" | "quiet":
                conversation.verbose = what == "verbose"
            case "think" | "nothink":
                conversation.think = think_level(value.strip() or "true") if what == "think" else False
            case _:
                raise UsageError(f"/set does not know {what!r}", hint="/? shows what it knows")
        self._terminal.line(f"set {rest}")

    def _show(self, rest: str) -> None:
        model = self._server.client.get(model_path(self._conversation.model))
        match rest or "info":
            case "info":
                for name in _INFO:
                    value = model[name]
                    self._terminal.line(f"{name:<16}{', '.join(value) if isinstance(value, list) else value}")
            case "parameters":
                for name, value in {**model["settings"], **self._conversation.parameters}.items():
                    self._terminal.line(f"{name:<20}{value}")
            case "system":
                system = self._conversation.system
                self._terminal.raw((model["system"] if system is None else system) + "\n")
            case "license" | "template":
                self._terminal.raw(model[rest] + "\n")
            case "modelfile":
                from mullama.manifest.modelfile import from_tree, render_modelfile

                spec, left = from_tree(self._conversation.declaration())
                self._terminal.raw(render_modelfile(spec, left))
            case _:
                raise UsageError(f"/show does not know {rest!r}", hint="/? shows what it knows")

    def _load(self, name: str) -> None:
        if not name:
            raise UsageError("/load needs a model")
        made = present(self._call, self._server, name)["name"]
        self._server.client.post("/api/models/load", {"name": made}, within=3600.0)
        self._conversation.model, self._conversation.messages = made, []
        self._terminal.line(f"now {made}")

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("/save needs a name")
        body = {"model": self._conversation.declaration(), "stream": True}
        follow_task(self._call, self._server.client.lines("PUT", model_path(name), body), quiet=True)
        self._terminal.line(f"saved as {name}")

    def _clear(self, _: str) -> None:
        self._conversation.messages = []
        self._terminal.line("forgotten what was said")

    def _help(self, _: str) -> None:
        self._terminal.raw(HELP)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"the quotes do not match: {error}") from error

"""`mullama chat`: a conversation with a model on the terminal, with commands that begin with a slash."""

from __future__ import annotations

import shlex
from contextlib import closing

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.api_client.tasks import follow_task
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options
from mullama.cli.app.exit_codes import DONE, as_mullama_error, explain
from mullama.cli.inference.conversation import Conversation, response_format, think_level
from mullama.cli.inference.line_editor import no_echo, read_line, unbuffered_keys
from mullama.cli.inference.options import (
    conversation_of,
    conversation_options,
    loaded_session,
    session_keeper,
    session_options,
)
from mullama.cli.inference.session_store import ChatStore, SessionKeeper, list_sessions, session_name
from mullama.cli.inference.stream import StreamedAnswer, answered, ask, counts, show, turn_of
from mullama.cli.models.load import declared_fields, default_model, resolve_model
from mullama.cli.on_fleet.serving import serving_host
from mullama.cli.server.ensure import ensure_server, model_path
from mullama.errors import MullamaError
from mullama.units import counted

HELP = """\
  /set parameter NAME VALUE   temperature, top_k, top_p, min_p, seed, num_predict, num_ctx, stop …
  /set system TEXT            change the system prompt
  /set history | nohistory    send earlier messages, or not
  /set format json | SCHEMA   /set noformat
  /set think [LEVEL]          /set nothink
  /set verbose | quiet        print token counts and speed, or not
  /show info | license | modelfile | parameters | system | template
  /load MODEL                 switch to another model
  /save MODEL                 save the conversation as a model
  /save-session NAME          save the conversation, now and after each answer
  /load-session NAME          continue a saved conversation; /sessions lists them
  /clear                      clear the conversation
  /bye                        end; also /exit and /quit
  /? [set | show]             print this help
  \"\"\"                         begin and end a text of several lines
"""
_INFO = ("name", "family", "parameter_size", "quantization", "context_size", "capabilities", "source")
_ENDS = ("/bye", "/exit", "/quit", "\\exit")
# Commands of other programs and the `/set` that each stands for.
_SHORT = {
    "/system": "system", "/temperature": "parameter temperature", "/topk": "parameter top_k",
    "/topp": "parameter top_p",
}  # fmt: skip
_BACKSLASHED = {f"\\{name[1:]}": name for name in (*_SHORT, "/help", "/clear")}


def chat_options(parser: Parser) -> None:
    manifest_options(parser)
    conversation_options(parser)
    session_options(parser)
    parser.add_argument("-m", "--model", dest="named", metavar="NAME", help="same as MODEL")
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help="a model or a route (default: the default model, on the terminal page where mullama[tui] is installed)",
    )  # fmt: skip


def chat(call: CommandContext) -> int:
    """Talk to a model line by line. Without its name, open the page on a terminal if its extra is installed."""
    saved, keeper = loaded_session(call), session_keeper(call)
    name = call.options.named or call.options.model or (saved.model if saved else None)
    server = serving_host(call, name, declared_fields(call)) or ensure_server(call)
    if not (name or keeper) and call.terminal.interactive and call.terminal.live:
        from mullama.cli.page.start import has_page, open_chat

        if has_page():
            return open_chat(call, conversation_of(call, ""))
    conversation = conversation_of(call, name or default_model(server), saved)
    conversation.use(resolve_model(call, server, conversation.model, declared_fields(call)))
    return talk(call, server, conversation, keeper)


def talk(
    call: CommandContext, server: FoundServer, conversation: Conversation, keeper: SessionKeeper | None = None
) -> int:
    """Run the REPL until the end of the input or /bye; return the exit code. keeper: saves after each answer."""
    repl = Repl(call, server, conversation, keeper)
    if call.terminal.interactive:
        call.terminal.line(f"{conversation.model}: /? prints the commands, /bye ends")
    with unbuffered_keys(call.terminal):
        while (text := repl.read()) is not None and text.strip() not in _ENDS:
            try:
                with no_echo(call.terminal):
                    repl.execute(text)
            except KeyboardInterrupt:
                call.terminal.note("interrupted")
            except (MullamaError, OSError) as error:
                for line in explain(as_mullama_error(error)):
                    call.terminal.note(line)
    return DONE


class Repl:
    """Reads lines from a terminal and executes them: commands, or questions to the model."""

    def __init__(
        self, call: CommandContext, server: FoundServer, conversation: Conversation, keeper: SessionKeeper | None
    ) -> None:
        self._call, self._server, self._conversation, self._keeper = call, server, conversation, keeper
        self._terminal = call.terminal

    def read(self) -> str | None:
        '''Return one line, or the lines between two `"""`; None at the end of the input.'''
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

    def execute(self, text: str) -> None:
        """Execute a command, or ask the model."""
        word, _, rest = text.strip().partition(" ")
        word = _BACKSLASHED.get(word, word)
        commands = {
            "/set": self._set, "/show": self._show, "/load": self._load, "/save": self._save, "/clear": self._clear,
            "/save-session": self._save_session, "/load-session": self._load_session, "/sessions": self._sessions,
            "/?": self._help, "/help": self._help,
        }  # fmt: skip
        if word in commands:
            commands[word](rest.strip())
        elif word in _SHORT:
            self._set(f"{_SHORT[word]} {rest.strip()}")
        elif word.startswith("/") and "/" not in word[1:] and "." not in word:
            raise UsageError(f"unknown command {word}", hint="/? prints the commands")
        elif text.strip():
            self._ask(text)

    def _ask(self, prompt: str) -> None:
        """Print the answer. Ctrl-C ends it; the part so far is added to the conversation."""
        conversation, answer = self._conversation, StreamedAnswer()
        turn, stopped = turn_of(self._call, prompt, reads=conversation.reads_media), False
        body = conversation.body(turn.question, turn.media)
        try:
            with closing(ask(self._server, body, answer)) as pieces:
                show(self._terminal, pieces, thinking=conversation.show_thinking)
        except KeyboardInterrupt:
            self._terminal.note("")
            stopped = True
        conversation.add(answered(turn, answer, stopped=stopped))
        self._terminal.raw("\n")
        if conversation.verbose and answer.last:
            self._terminal.note(counts(answer.last))
        if self._keeper is not None:
            self._keeper.keep(conversation)

    def _set(self, rest: str) -> None:
        setting, _, value = rest.partition(" ")
        conversation = self._conversation
        match setting:
            case "parameter":
                name, *values = _split(value) or [""]
                conversation.set_parameter(name, *values)
                if name in ("num_ctx", "num_gpu"):
                    self._terminal.note(f"{name} applies to models that /save creates; the loaded one keeps its own")
            case "system":
                conversation.system = value.strip().removeprefix('"""').removesuffix('"""')
            case "history" | "nohistory":
                conversation.remember = setting == "history"
            case "wordwrap" | "nowordwrap":
                self._terminal.line("lines are never wrapped here")
                return
            case "format" | "noformat":
                conversation.format = response_format(value.strip() or "json") if setting == "format" else None
            case "verbose" | "quiet":
                conversation.verbose = setting == "verbose"
            case "think" | "nothink":
                conversation.think = think_level(value.strip() or "true") if setting == "think" else False
            case "":
                self._terminal.raw("".join(line for line in HELP.splitlines(keepends=True) if "/set " in line))
                return
            case _:
                raise UsageError(f"/set: unknown setting {setting!r}", hint="/set prints the settings")
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
                from mullama.manifest.modelfile import from_tree, lost_by_ollama, render_modelfile

                spec, left = from_tree(self._conversation.declaration())
                self._terminal.raw(text := render_modelfile(spec, left))
                for sentence in lost_by_ollama(text):
                    self._terminal.note(f"warning: {sentence}")
            case _:
                raise UsageError(f"/show: unknown part {rest!r}", hint="/? prints the parts")

    def _load(self, name: str) -> None:
        if not name:
            raise UsageError("/load needs a model")
        model = resolve_model(self._call, self._server, name)
        self._server.client.post("/api/models/load", {"name": model["name"]}, within=3600.0)
        self._conversation.use(model)
        self._begin_anew()
        self._terminal.line(f"switched to {model['name']}")

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("/save needs a name")
        body = {"model": self._conversation.declaration(), "stream": True}
        follow_task(self._call, self._server.client.lines("PUT", model_path(name), body), quiet=True)
        self._terminal.line(f"saved as {name}")

    def _clear(self, _: str) -> None:
        self._begin_anew()
        self._terminal.line("conversation cleared")

    def _begin_anew(self) -> None:
        """Empty the conversation. A saved one stays as it is on disk."""
        self._conversation.turns, self._conversation.continues = (), None
        if self._keeper is not None:
            self._terminal.note(f"{self._keeper.name} stays as it was saved; /save-session NAME saves what follows")
            self._keeper = None

    def _save_session(self, name: str) -> None:
        if not name:
            raise UsageError("/save-session needs a name")
        current = self._keeper.name if self._keeper else self._conversation.continues
        self._keeper = SessionKeeper(ChatStore(self._call.env), name, continued=current)
        self._keeper.keep(self._conversation)
        self._terminal.line(f"saved as {name}, and after each answer")

    def _load_session(self, name: str) -> None:
        if not name:
            raise UsageError("/load-session needs a name", hint="/sessions prints them")
        log = ChatStore(self._call.env).find(session_name(name, any_id=True))
        self._conversation.use(resolve_model(self._call, self._server, log.model))
        self._begin_anew()
        self._conversation.restore(log)
        self._terminal.line(f"{counted(len(log.turns), 'turn')} of {name}, with {self._conversation.model}")

    def _sessions(self, _: str) -> None:
        list_sessions(self._call.terminal, ChatStore(self._call.env))

    def _help(self, _: str) -> None:
        self._terminal.raw(HELP)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"unbalanced quotes: {error}") from error

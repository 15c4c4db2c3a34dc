"""The pane of the playground: a conversation with a model, kept on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Markdown, Static

from mullama.cli.inference.conversation import Conversation
from mullama.cli.inference.session_log import ChatLog, ChatTurn, asked, with_last, without_last
from mullama.cli.inference.session_store import ChatStore
from mullama.cli.inference.stream import StreamedAnswer, ask, counts, turn_of
from mullama.cli.models.load import default_model
from mullama.cli.page.cells import PageColumn, cell
from mullama.cli.page.chat_log import CHAT_COLUMNS, chat_rows, model_choices
from mullama.cli.page.screens.dialogs import Question, RowChoice
from mullama.cli.page.screens.jobs import in_background, streamed
from mullama.cli.page.screens.pane import Pane
from mullama.cli.page.screens.rows import content
from mullama.cli.page.screens.turns import Composer, TurnView
from mullama.cli.server.ensure import model_path
from mullama.client.http import StreamStop
from mullama.errors import MullamaError

_MODEL_COLUMNS = (PageColumn("name", "MODEL", 12, 0), PageColumn("state", "STATE", 8, 1))
_EMPTY = "Ask something below. The conversation is kept on this machine; ctrl+o opens an earlier one."


class ChatPane(Pane):
    """A conversation with a model."""

    title = "Chat"
    help = "A conversation with a model. Conversations are kept on this machine."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "new", "New"),
        Binding("ctrl+o", "open", "Open"),
        Binding("ctrl+l", "model", "Model"),
        Binding("ctrl+r", "again", "Answer again"),
        Binding("ctrl+g", "copy", "Copy the answer", show=False),
        Binding("e", "edit", "Edit the question", show=False),
        Binding("t", "fold", "Show thinking", show=False),
        Binding("d", "delete", "Delete the conversation", show=False),
        Binding("i,enter", "write", "Write", show=False),
        Binding("escape", "stop", "Stop the answer", show=False),
    ]

    def __init__(self, conversation: Conversation | None = None) -> None:
        """conversation: its settings and model; None for those of the server and its default model."""
        super().__init__(id="chat")
        self._settings = conversation or Conversation(model="")
        self._given = self._settings.log("", 0.0)
        """The settings of a new conversation."""
        self._store: ChatStore | None = None
        self._log = ChatLog(id="", model=self._settings.model, changed=0.0)
        self._stop: StreamStop | None = None
        """Set while an answer arrives."""
        self._view: TurnView | None = None
        """The turn that is answered."""
        self._answer = StreamedAnswer()

    def compose(self) -> ComposeResult:
        yield Static(id="chat-title")
        with VerticalScroll(id="turns"):
            yield Static(_EMPTY, id="no-turns", classes="quiet", markup=False)
        yield Composer()

    def entered(self) -> None:
        if self._store is None:
            self._store = ChatStore(self.page.server.call.env)
        self.screen.set_focus(self.query_one(Composer))
        self._draw_title()
        if not self._settings.model:
            self._find_model()

    # The model

    def _find_model(self) -> None:
        server = self.page.server
        in_background(self.page, lambda: default_model(server.find()), self._use, lambda _: self._draw_title())

    def _use(self, name: str) -> None:
        """Ask this model from now on."""
        self._settings.model = name
        self._draw_title()
        server = self.page.server
        in_background(
            self.page, lambda: server.find().client.get(model_path(name)), partial(self._described, name), self.failed
        )

    def _described(self, name: str, card: dict[str, Any]) -> None:
        if name == self._settings.model:
            self._settings.use({**card, "name": name})

    def action_model(self) -> None:
        rows = [
            (name, (cell(name, "strong"), cell(text, "dim"))) for name, text in model_choices(self.page.view.status)
        ]
        choice = RowChoice("Ask the model", _MODEL_COLUMNS, rows, empty="The server has no model.")
        self.page.push_screen(choice, lambda name: self._use(name) if name else None)

    def _draw_title(self) -> None:
        model = self._settings.model or "no model is chosen: ctrl+l chooses one"
        parts = [cell(model, "strong" if self._settings.model else "warning")]
        if self._log.turns:
            parts.append(cell(self._log.title, "dim"))
        if self._stop is not None:
            parts.append(cell("answering, escape stops", "busy"))
        self.query_one("#chat-title", Static).update(content(*parts, gap=" · "))
        self.query_one("#no-turns").display = not self._log.turns

    # Questions and answers

    async def on_composer_sent(self, event: Composer.Sent) -> None:
        if self._stop is not None:
            self.page.say("An answer is arriving: escape stops it.")
        elif not self._settings.model:
            self.action_model()
        else:
            await self._ask(event.text)

    async def _ask(self, text: str) -> None:
        try:
            turn = turn_of(self.page.server.call, text.strip("\n"), reads=self._settings.reads_media)
        except MullamaError as error:
            self.failed(error)  # the text stays in the field
            return
        self.query_one(Composer).take(text)
        await self._send(turn)

    async def _send(self, turn: ChatTurn) -> None:
        """Ask the model, and show the answer while it arrives."""
        now = time.time()
        if not self._log.id and self._store is not None:
            self._log = self._settings.log(self._store.new_id(now), now)
        self._settings.turns = self._log.turns
        body = self._settings.body(turn.question, turn.media)
        self._log = asked(self._log, turn, now)
        self._keep()
        self._stop, self._answer, self._view = StreamStop(), StreamedAnswer(), TurnView(turn)
        turns = self.query_one("#turns", VerticalScroll)
        await turns.mount(self._view)  # pieces that arrive before it is there would be lost
        turns.anchor()
        self._draw_title()
        server, answer, stop = self.page.server, self._answer, self._stop

        def pieces() -> Iterator[tuple[str, str]]:
            return ask(server.find(), body, answer, stop)

        streamed(self.page, pieces, partial(self._piece, self._view), partial(self._ended, self._view))

    async def _piece(self, view: TurnView, piece: tuple[str, str]) -> None:
        kind, text = piece
        if not view.is_mounted or not text:
            return
        if kind == "tool":
            view.finish(text)  # until the end of the answer, or the next call
            return
        await (view.think(text) if kind == "thinking" else view.append(text))

    async def _ended(self, view: TurnView, error: MullamaError | None) -> None:
        if view is not self._view or self._stop is None:
            return
        stopped, self._stop, self._view = self._stop.stopped, None, None
        failed = error is not None and not stopped
        note = "stopped" if stopped else str(error) if error is not None else counts(self._answer.last)
        self._log = with_last(
            self._log, time.time(), answer=self._answer.text, thinking=self._answer.thinking, note=note, failed=failed
        )
        self._keep()
        self._draw_title()
        if view.is_mounted:
            await view.end(f"{note} · ctrl+r asks again" if failed else note, failed=failed)

    def _keep(self) -> None:
        try:
            if self._store is not None:
                self._store.save(self._log)
        except OSError as error:
            self.page.say(f"the conversation is not kept: {error}")

    def on_composer_left(self) -> None:
        if self._stop is not None:
            self.action_stop()
        else:
            self.screen.set_focus(self.query_one("#turns"))

    def action_stop(self) -> None:
        if self._stop is not None:
            self._stop.stop()

    # The conversation

    def action_write(self) -> None:
        self.screen.set_focus(self.query_one(Composer))

    async def action_new(self) -> None:
        await self._open(ChatLog(id="", model=self._settings.model, changed=0.0))
        self._settings.restore(self._given)

    def action_open(self) -> None:
        if self._store is None or self._is_busy():
            return
        rows = chat_rows(self._store.all(), time.time())
        choice = RowChoice("Open a conversation", CHAT_COLUMNS, rows, empty="No conversation is kept yet.")
        self.page.push_screen(choice, self._reopen)

    async def _reopen(self, id: str | None) -> None:
        if id is None or self._store is None:
            return
        try:
            log = self._store.find(id)
        except MullamaError as error:
            self.failed(error)
            return
        await self._open(log)
        self._settings.restore(log)
        if log.model != self._settings.model:
            self._use(log.model)

    async def _open(self, log: ChatLog) -> None:
        if self._is_busy():
            return
        self._log = log
        turns = self.query_one("#turns", VerticalScroll)
        await turns.query(TurnView).remove()
        await turns.mount_all(TurnView(turn) for turn in log.turns)
        turns.anchor()
        self._draw_title()
        self.action_write()

    async def action_again(self) -> None:
        """Ask the last question again, in place of its answer."""
        if self._log.turns and not self._is_busy():
            last = await self._take_last()
            await self._send(ChatTurn(question=last.question, files=last.files, media=last.media))

    async def action_edit(self) -> None:
        """Move the last question back to the field."""
        if self._log.turns and not self._is_busy():
            last = await self._take_last()
            field = self.query_one(Composer)
            field.text = last.question
            field.move_cursor(field.document.end)
            self._draw_title()
            self.action_write()

    async def _take_last(self) -> ChatTurn:
        last, self._log = self._log.turns[-1], without_last(self._log)
        await list(self.query(TurnView))[-1].remove()
        return last

    def action_fold(self) -> None:
        for view in self.query(TurnView):
            view.fold()

    def action_copy(self) -> None:
        """Copy the last answer by OSC 52, which most terminals allow."""
        if self._log.turns:
            self.page.copy_to_clipboard(self._log.turns[-1].answer)
            self.page.say("The answer is copied.")

    def action_delete(self) -> None:
        if not self._log.id or self._is_busy():
            return
        ask_first = Question(
            f"Delete “{self._log.title}”?", yes="Delete", details="Its file is removed from this machine."
        )
        self.page.push_screen(ask_first, self._delete)

    async def _delete(self, agreed: bool | None) -> None:
        if agreed and self._store is not None:
            self._store.delete(self._log.id)
            await self.action_new()

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """Show where a link leads. A page of a model opens no browser."""
        self.page.say(f"link: {event.href}")

    def _is_busy(self) -> bool:
        if self._stop is not None:
            self.page.say("An answer is arriving: escape stops it.")
        return self._stop is not None

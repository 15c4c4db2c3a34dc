"""The widgets of a conversation: a question with its answer, and the field for the next question."""

from __future__ import annotations

import time
from typing import ClassVar

from markdown_it import MarkdownIt
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Key
from textual.message import Message
from textual.widgets import Collapsible, Markdown, Static, TextArea
from textual.widgets.markdown import MarkdownStream

from mullama.cli.inference.session_log import ChatTurn
from mullama.cli.page.cells import cell
from mullama.cli.page.chat_log import LinePlace, broken, inert, thinking_title
from mullama.cli.page.pictures import PictureRow, pictures
from mullama.cli.page.screens.jobs import in_background
from mullama.cli.page.screens.rows import content

_SHOWN = 100_000  # characters of an answer that are drawn; a model that never ends would fill the memory
_THINKING_SECONDS = 0.2  # between two drawings of the thinking


def _markdown() -> MarkdownIt:
    """Return the parser of answers: tags of HTML are text, as everything that a model writes."""
    return MarkdownIt("gfm-like", {"html": False})


class TurnView(Vertical):
    """A question, the files of it, the folded thinking, and the answer as Markdown."""

    def __init__(self, turn: ChatTurn) -> None:
        super().__init__(classes="turn")
        self._turn = turn
        self._answer = ""
        self._thinking = turn.thinking
        self._drawn = 0.0
        self._place = LinePlace()
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        yield Static(inert(self._turn.question), classes="asked", markup=False)
        # Pictures are characters. Terminals differ in their protocols for pictures (kitty, iTerm, sixel), most pass
        # none through tmux or a connection, and a wrong guess fills the page with escapes.
        for name in self._turn.files:
            yield Static(content(cell(f"▣ {name}", "dim")), classes="file")
        yield Static(classes="picture")
        with Collapsible(title="", collapsed=True, classes="thinking"):
            yield Static(markup=False, classes="thought")
        yield Markdown(parser_factory=_markdown, open_links=False, classes="answer")
        yield Static(classes="note")

    async def on_mount(self) -> None:
        self._show_pictures()
        self._show_thinking(running=False)
        self._answer = self._turn.answer
        await self._body.update(self._drawable(self._answer[:_SHOWN]))
        self.finish(self._turn.note, failed=self._turn.failed)

    def _drawable(self, text: str) -> str:
        """Return the next piece of the answer as it can be drawn."""
        text, self._place = broken(text, self._place)
        return inert(text)

    def _show_pictures(self) -> None:
        """Show the pictures of the question where colours are shown."""
        place = self.query_one(".picture", Static)
        place.display = False
        media = self._turn.media

        def took(found: list[tuple[PictureRow, ...]]) -> None:
            lines = [Content("").join(Content.styled(*one) for one in row) for rows in found for row in rows]
            place.update(Content("\n").join(lines))
            place.display = bool(lines)

        if media and not self.app.ansi_color:
            in_background(self.app, lambda: list(pictures(media)), took, lambda _: None)

    @property
    def _body(self) -> Markdown:
        return self.query_one(".answer", Markdown)

    async def think(self, text: str) -> None:
        """Append to the thinking."""
        self._thinking += text
        if time.monotonic() - self._drawn > _THINKING_SECONDS:
            self._show_thinking(running=True)

    async def append(self, text: str) -> None:
        """Append to the answer. Pieces that arrive faster than they can be drawn are drawn together."""
        if self._stream is None:
            self._show_thinking(running=False)
            self._stream = Markdown.get_stream(self._body)
        room = _SHOWN - len(self._answer)
        self._answer += text
        if room > 0:
            await self._stream.write(self._drawable(text[:room]))

    async def end(self, note: str, *, failed: bool) -> None:
        """Draw all that came, and the way in which the answer ended."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.stop()
        self._show_thinking(running=False)
        self.finish(note, failed=failed)

    def finish(self, note: str, *, failed: bool = False) -> None:
        """Show the line under the answer."""
        line = self.query_one(".note", Static)
        more = f"the first {_SHOWN:,} characters are shown, " if len(self._answer) > _SHOWN else ""
        line.update(content(cell(f"{more}{note}", "error" if failed else "dim")))
        line.display = bool(note or more)

    def fold(self) -> None:
        """Fold or unfold the thinking."""
        folded = self.query_one(Collapsible)
        folded.collapsed = not folded.collapsed

    def _show_thinking(self, *, running: bool) -> None:
        folded = self.query_one(Collapsible)
        folded.display = bool(self._thinking)
        if self._thinking:
            self._drawn = time.monotonic()
            folded.title = thinking_title(self._thinking, running=running)
            self.query_one(".thought", Static).update(Content(inert(self._thinking[-_SHOWN:])))


_NEW_LINE = "ctrl+j,shift+enter,alt+enter"


class Composer(TextArea):
    """The field for a question: Enter sends it, Ctrl-J or Shift-Enter begins a new line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send"),
        Binding(_NEW_LINE, "line", "New line", key_display="^j"),
    ]

    class Sent(Message):
        """A question is complete."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """Escape: the answer is stopped, or the keys go to the conversation."""

    def __init__(self) -> None:
        super().__init__(
            soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False, compact=True, id="composer",
            placeholder="Ask something. Enter sends, ctrl+j begins a new line, a path names an image.",
        )  # fmt: skip

    def action_send(self) -> None:
        if self.text.strip():
            self.post_message(self.Sent(self.text))

    def action_line(self) -> None:
        self.insert("\n")

    def take(self, text: str) -> None:
        """Remove a text that was sent, and keep the keys since then."""
        self.text = self.text.removeprefix(text)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: Key) -> None:
        """Act on keys in their order: a binding with priority would pass keys that this field has not read yet."""
        if event.key == "escape":
            self.post_message(self.Left())
        elif event.key == "enter":
            self.action_send()
        elif event.key in _NEW_LINE.split(","):
            self.action_line()
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

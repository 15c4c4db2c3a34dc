"""The lines that a person types: edited and remembered where there is readline, and no key is lost between two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mullama.cli.console.terminal import Terminal


def read_line(terminal: Terminal, prompt: str) -> str | None:
    """One line without its end, None at the end of the input. Ctrl-C gives up the line and gives ""."""
    try:
        if _is_edited(terminal):
            return input(prompt)
        if terminal.interactive:
            terminal.raw(prompt)
        line = terminal.source.readline()
    except EOFError:
        terminal.line()
        return None
    except KeyboardInterrupt:
        terminal.line()
        terminal.note("/bye or Ctrl-D ends")
        return ""
    return line.removesuffix("\n") if line else None


@contextmanager
def keys_kept(terminal: Terminal) -> Iterator[None]:
    """Keep what is typed while nobody reads for the next `read_line`, every key as it is.

    A terminal that gathers lines takes a Ctrl-D that is typed while an answer is written for an end of its own:
    it is gone by the time that a line is read. So the gathering is off until the block ends; Ctrl-C goes on working.
    """
    with _without(terminal, "ICANON"):
        yield


@contextmanager
def unechoed(terminal: Terminal) -> Iterator[None]:
    """Do not show what is typed in the middle of what is written here; `read_line` shows it where it belongs."""
    with _without(terminal, "ECHO"):
        yield


@contextmanager
def _without(terminal: Terminal, flag: str) -> Iterator[None]:
    """Switch off one of the terminal's local modes, where there is a person at one."""
    if not _is_edited(terminal):
        yield
        return
    import termios

    before = termios.tcgetattr(terminal.source)
    changed = termios.tcgetattr(terminal.source)
    changed[3] &= ~getattr(termios, flag)
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0  # without lines, a read waits for one key
    termios.tcsetattr(terminal.source, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(terminal.source, termios.TCSADRAIN, before)


def _is_edited(terminal: Terminal) -> bool:
    """Whether a person types here and `input` edits what is typed, which it does once readline is imported."""
    if terminal.source is not sys.stdin or not terminal.interactive:
        return False
    try:
        import readline  # noqa: F401
        import termios  # noqa: F401
    except ImportError:
        return False
    return True

"""Reads lines from the terminal, with editing and history where readline is available."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mullama.cli.console.terminal import Terminal


def read_line(terminal: Terminal, prompt: str) -> str | None:
    """Return one line without its newline, None at the end of the input, "" when Ctrl-C discards the line."""
    try:
        if _has_readline(terminal):
            return input(prompt)
        if terminal.interactive:
            terminal.raw(prompt)
        line = terminal.source.readline()
    except EOFError:
        terminal.line()
        return None
    except KeyboardInterrupt:
        terminal.line()
        terminal.note("type /bye or Ctrl-D to end")
        return ""
    return line.removesuffix("\n") if line else None


@contextmanager
def unbuffered_keys(terminal: Terminal) -> Iterator[None]:
    """Keep keys that are typed while an answer is printed for the next `read_line`.

    In line mode the terminal consumes a Ctrl-D that is typed at that time. Line mode is off inside the block; Ctrl-C
    still interrupts.
    """
    with _mode_off(terminal, "ICANON"):
        yield


@contextmanager
def no_echo(terminal: Terminal) -> Iterator[None]:
    """Do not echo keys into the printed answer; the next `read_line` shows them at its prompt."""
    with _mode_off(terminal, "ECHO"):
        yield


@contextmanager
def _mode_off(terminal: Terminal, flag: str) -> Iterator[None]:
    """Switch off one of the local modes of an interactive terminal inside the block."""
    if not _has_readline(terminal):
        yield
        return
    import termios

    before = termios.tcgetattr(terminal.source)
    changed = termios.tcgetattr(terminal.source)
    changed[3] &= ~getattr(termios, flag)
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0  # outside line mode, a read waits for one key
    termios.tcsetattr(terminal.source, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(terminal.source, termios.TCSADRAIN, before)


def _has_readline(terminal: Terminal) -> bool:
    """True for an interactive terminal with readline; importing readline makes `input` use it."""
    if terminal.source is not sys.stdin or not terminal.interactive:
        return False
    try:
        import readline  # noqa: F401
        import termios  # noqa: F401
    except ImportError:
        return False
    return True

"""The colours of the pages."""

from __future__ import annotations

from typing import Any

from textual.app import App
from textual.theme import Theme

_ACCENT = "#4C9AFF"
_DARK = Theme(
    name="mullama-dark", primary=_ACCENT, accent=_ACCENT, warning="#E5A13B", error="#E5596B", success="#4EBF71"
)
_LIGHT = Theme(name="mullama-light", primary="#0052CC", accent="#0052CC", warning="#9A5B00", dark=False)
_PLAIN = "ansi-dark"  # the colours of the terminal, which NO_COLOR takes away


def set_theme(app: App[Any]) -> None:
    """Give a page its colours."""
    app.register_theme(_DARK)
    app.register_theme(_LIGHT)
    app.theme = _PLAIN if app.ansi_color else _DARK.name


def turn_theme(app: App[Any]) -> None:
    """Change between dark and light. Without colours nothing changes."""
    if not app.ansi_color:
        app.theme = _LIGHT.name if app.theme == _DARK.name else _DARK.name

"""Log lines of runs: each phase and each tenth of a download, and the state of each model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mullama.units import size

_log = logging.getLogger("mullama.models")
_PHASES = ("downloading", "verifying", "retrying", "waiting")


class RunLog:
    """Writes the progress of runs to the log. Belongs to one server."""

    def __init__(self) -> None:
        self._written: dict[tuple[str, str], tuple[str, int]] = {}

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Write a line of progress, if it says more than the last one."""
        match line["event"]:
            case "fetch":
                self._download(line)
            case "step" if line["state"] == "failed":
                _log.error("%s: failed: %s", line["model"], line["message"], extra=_about(line))
            case "step":
                reason = f" ({line['message']})" if line["message"] else ""
                _log.info("%s: %s%s", line["model"], line["state"], reason, extra=_about(line))
            case "warning":
                _log.warning("%s", line["message"])
            case _:
                pass

    def _download(self, line: Mapping[str, Any]) -> None:
        phase, done, total = line["phase"], line["done"], line["total"]
        key = (line["model"], line["file"])
        if phase not in _PHASES:
            if self._written.pop(key, ("", 0))[0] == "downloading":
                origin = f" from {line['origin']}" if line.get("origin") else ""
                _log.info("%s: %s is complete%s", *key, origin, extra=_about(line))
            return
        tenth = 10 * done // total if total else 0
        before = self._written.get(key)
        if before == (phase, tenth) or (before is not None and before[0] == phase != "downloading"):
            return
        self._written[key] = (phase, tenth)
        amount = f": {10 * tenth} % of {size(total)}" if total else ""
        reason = f" ({line['message']})" if line["message"] else ""
        _log.info("%s: %s %s%s%s", line["model"], phase, line["file"], amount, reason, extra=_about(line))


def _about(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a log record with its model, by which readers filter the log."""
    return {"models": (line["model"],)}

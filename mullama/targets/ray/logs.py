"""The log of a replica: the lines of mullama, in the file that Serve keeps for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mullama.manifest.tree import parse_resolved
from mullama.server import log


def configure(manifest: Mapping[str, Any]) -> None:
    """Write the lines of mullama's loggers, at the declared levels."""
    settings = parse_resolved(manifest).observability.logs
    logger = logging.getLogger("mullama")
    if not logger.handlers:
        path = next(_files(), None)
        handler = logging.FileHandler(path) if path else logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        logger.propagate = False
    logger.handlers[0].setFormatter(log.Lines(settings.format))
    log.configure(settings, {})


def _files() -> Iterator[str]:
    """Yield the log file of this replica, which the logger of Serve writes."""
    for handler in logging.getLogger("ray.serve").handlers:
        inner = getattr(handler, "target", None) or handler  # Serve may collect lines before it writes them
        if isinstance(inner, logging.FileHandler):
            yield inner.baseFilename

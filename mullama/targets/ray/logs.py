"""The log of a replica: mullama's lines in the file that Serve keeps for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from mullama.manifest.tree import parse_resolved
from mullama.server import log


def configure(manifest: Mapping[str, Any]) -> None:
    """Write the lines of mullama's loggers to standard error, which Ray keeps for each worker, at declared levels."""
    settings = parse_resolved(manifest).observability.logs
    logger = logging.getLogger("mullama")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        logger.propagate = False
    logger.handlers[0].setFormatter(log.Lines(settings.format))
    log.configure(settings, {})

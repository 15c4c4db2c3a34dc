"""How many files and sockets this process may have open."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


def allow_descriptors(wanted: int) -> int:
    """Raise the soft limit as far as the system lets us; a warning where that is too little. The limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
        soft = enough
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _log.warning("at most %d files and sockets can be open, %d are wanted: raise ulimit -n", soft, wanted)
    return soft

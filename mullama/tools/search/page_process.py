"""The process that turns pages into text: it reads HTML that strangers wrote, with limits on memory and time.

It answers each frame of standard input, `{"html": …, "seconds": …}`, with one of standard output, `{"title", "text"}`.
A frame is a length of four bytes, most significant first, and that many bytes of JSON. A page that it cannot read ends
the process.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from typing import BinaryIO, Final

import trafilatura

from mullama.tools.search.page_reader import HEAD, MOST_TEXT

_MEMORY: Final = 1024**3
_GRACE: Final = 5
"""Seconds after which the system ends the process, if its parent could not."""


def main() -> None:
    """Answer pages until standard input ends."""
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while (frame := _read(sys.stdin.buffer)) is not None:
        page = json.loads(frame)
        signal.alarm(int(page["seconds"]) + _GRACE)
        title, text = _read_page(page["html"])
        data = json.dumps({"title": title[:1000], "text": text[:MOST_TEXT]}).encode()
        answers.write(struct.pack(HEAD, len(data)) + data)
        answers.flush()
        signal.alarm(0)


def _read_page(html: str) -> tuple[str, str]:
    """Return the title and the main text; the complete text for a page without a main part."""
    tree = trafilatura.load_html(html)
    if tree is None:  # a fragment is no document to the library
        html = f"<html><body>{html}</body></html>"
        tree = trafilatura.load_html(html)
    if tree is None:
        return "", ""
    title = " ".join((tree.findtext(".//title") or "").split())
    text = trafilatura.extract(tree, include_comments=False, favor_recall=True)
    return title, text or trafilatura.html2txt(html)


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(struct.calcsize(HEAD))
    return source.read(struct.unpack(HEAD, head)[0]) if head else None


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, ValueError, OSError):  # a system without this limit; the limit of time remains
        return


if __name__ == "__main__":
    main()

"""Reads the headers of weights where they are, by ranges, so that nothing has to be fetched to know what they need."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.errors import TransferFailed, Unavailable
from mullama.sources.asking import ask
from mullama.sources.base import Cancelled
from mullama.sources.settings import Settings
from mullama.sources.web import Interrupted, Web
from mullama.weights.facts import WeightFacts
from mullama.weights.gguf import MAX_HEADER, Read
from mullama.weights.inspect import inspect
from mullama.weights.located import LocatedFile


def remote_facts(files: Sequence[LocatedFile], settings: Settings, cancelled: Cancelled) -> WeightFacts:
    """The facts of files that have an address and a known size; a few MiB of each are asked for.

    Raises `BadWeights`, `TransferFailed` for a host that serves no ranges, `Unavailable` for none that answers.
    """
    with Web(waits=settings.waits, public_only=settings.public_only, cancelled=cancelled) as web:
        return inspect([(_reader(web, file), file.size or 0) for file in files])


def _reader(web: Web, file: LocatedFile) -> Read:
    def read(offset: int, length: int) -> bytes:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        try:
            answer, body = ask(web, file.url or "", wanted, file.credential, limit=MAX_HEADER)
        except Interrupted as error:
            raise Unavailable(f"the header of {file.name} could not be read: {error}") from error
        if answer.status == 200 and offset == 0:
            return body[:length]
        if answer.status != 206:
            raise TransferFailed(f"{answer.host} answered {answer.status} to a range of {file.name}")
        return body

    return read

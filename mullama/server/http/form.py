"""Forms with a file (multipart/form-data): the file goes to the disk as it arrives, and never into memory whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from mullama.chat.transcription import SoundFile
from mullama.errors import Invalid, Unavailable
from mullama.names import JSONValue
from mullama.server.http.body import BodyShare, pieces
from mullama.server.http.exchange import Exchange
from mullama.server.http.inflate import inflater
from mullama.server.http.limits import Bounds

_MOST_FIELDS = 64
_MOST_FIELD = 64 * 2**10
"""Bytes of the value of a field."""
_AROUND = 2**20
"""Bytes of the fields and boundaries of a form, beside its file."""
_HEAD = 4096


@asynccontextmanager
async def read_form(
    exchange: Exchange, share: BodyShare, *, limit: int, bounds: Bounds
) -> AsyncIterator[dict[str, Any]]:
    """Yield the `body` and the `files` of a form as fields of a `WireRequest`. The files are deleted at the end.

    share: of the disk, for the bytes of the form.
    limit: most bytes of the file.
    Raises `Invalid` for a body that is no form with one file at most, and `Unavailable` where the disk has no room.
    """
    media = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "multipart/form-data":
        raise Invalid(
            f"the body is {media[:80] or 'of no type'!r}, and a file is sent as multipart/form-data",
            hint="send a form with the fields file and model",
        )
    # Few servers get files, so the parser is imported with the first form.
    from python_multipart.exceptions import MultipartParseError
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    headers = Headers({"content-type": exchange.headers["content-type"]})
    async with AsyncExitStack() as stack:
        stream = await stack.enter_async_context(aclosing(_unpacked(exchange, share, limit + _AROUND, bounds)))
        parser = MultiPartParser(
            headers, stream, max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD
        )  # fmt: skip
        try:
            form = await parser.parse()
        except (MultiPartException, MultipartParseError, KeyError, UnicodeDecodeError) as error:
            reason = getattr(error, "message", None) or str(error) or type(error).__name__
            hint = "send multipart/form-data with one file"
            raise Invalid(f"the form cannot be read: {reason}", hint=hint) from error
        except OSError as error:
            raise Unavailable(f"the file cannot be kept on the disk of the server: {error.strerror}") from error
        stack.push_async_callback(form.close)
        texts: dict[str, list[str]] = {}
        files: dict[str, SoundFile] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files[name] = await _kept(value)
            else:
                texts.setdefault(name, []).append(value)
        yield {"body": _tree(texts), "files": files}


async def _unpacked(exchange: Exchange, share: BodyShare, limit: int, bounds: Bounds) -> AsyncGenerator[bytes, None]:
    """Yield the body without its compression."""
    unpack = inflater(exchange.headers.get("content-encoding", ""), limit)
    async with aclosing(pieces(exchange, limit=limit, bounds=bounds)) as arriving:
        async for piece in arriving:
            if plain := unpack.feed(piece):
                share.take(len(plain))
                yield plain
    if rest := unpack.end():
        yield rest


async def _kept(upload: Any) -> SoundFile:
    upload.file.rollover()  # a small file is still in memory, and has no descriptor
    await upload.seek(0)
    head = await upload.read(_HEAD)
    return SoundFile(file=upload.file, size=upload.size or 0, head=head, name=upload.filename or "")


def _tree(texts: Mapping[str, list[str]]) -> dict[str, JSONValue]:
    """Return the fields by name: `a[]` is a list, and `a[b]` a member of an object, as clients write them."""
    tree: dict[str, Any] = {}
    for name, values in texts.items():
        outer, bracket, rest = name.partition("[")
        if bracket and rest == "]":
            tree[outer] = list(values)
        elif bracket and rest.endswith("]") and isinstance(tree.get(outer, {}), dict):
            tree.setdefault(outer, {})[rest[:-1]] = values[-1]
        else:
            tree[name] = values[-1] if len(values) == 1 else list(values)
    return tree

"""One projector of an engine: prompts with media in, jobs with encoded runs out.

A job is prepared in a thread of its own (`Child`), beside the decodes for other requests: to encode an image takes as
long as many of them. The media thread alone encodes; the lock is for the main thread, which closes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.media.limits import check_file, check_seconds
from mullama.chat.types import DraftLimits
from mullama.engines.base import Generate, MediaFacts, Projector, Prompt
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.vectors import MediaChunk
from mullama.engines.llamacpp.media.conversion import CONVERTED, converted
from mullama.engines.llamacpp.media.files import checked, damaged, name_of, readable
from mullama.engines.llamacpp.media.runs import MediaJob, MediaRun, Numbers, PlacedRun
from mullama.engines.llamacpp.prompt_tokens import parts_between
from mullama.engines.llamacpp.vocabulary import Vocabulary
from mullama.engines.media_checks import check_media
from mullama.errors import ContextOverflow, EngineFailed, Invalid, Unsupported
from mullama.struct import Struct, field_names

if TYPE_CHECKING:
    from mullama.engines.llamacpp.binding.media import NativeProjector, Pieces

_ALIGNED, _NUMBERED = "deepseek4v", "hunyuanvl"  # see clip.projector_type in clip-impl.h
_MOST_REMEMBERED = 4096  # media whose runs keep their numbers

Part = list[int] | MediaRun


class _Known(Struct, eq=False):
    """A medium that was encoded."""

    seconds: float
    """Of a sound."""
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.vectors.nbytes for part in self.parts if isinstance(part, MediaRun))

    def check(self, medium: Medium, limits: MediaLimits, place: int) -> None:
        """Raise `TooLarge` where another model has smaller limits."""
        check_file(medium.kind, medium.data, name_of(place), limits)
        check_seconds(self.seconds, name_of(place), limits)


class _Opened(Struct, frozen=True, eq=False):
    """A medium that is decoded and not encoded."""

    place: int
    """Its number in the request, from 1."""
    seconds: float
    pieces: Pieces


class MediaEncoder:
    """The media of all contexts with one projector. Raises the errors of `NativeProjector`: at once, or with the first
    medium for a projector whose abilities are known.
    """

    def __init__(self, projector: Projector, model: NativeModel, vocabulary: Vocabulary, *, threads: int) -> None:
        self._projector, self._model, self._threads = projector, model, threads
        self._opened: NativeProjector | None = None
        self._closed = False
        self.facts = projector.known or self._facts()
        self._vocabulary = vocabulary
        self._most_bytes = projector.cache_bytes
        self._known: OrderedDict[str, _Known] = OrderedDict()  # by digest, least recently used first
        self._bytes = 0
        self._lock = threading.Lock()
        self.numbers = Numbers()
        self.encoded = 0
        """Chunks that were encoded."""

    def _facts(self) -> MediaFacts:
        return MediaFacts(vision=self._native.vision, audio=self._native.audio)

    @property
    def _native(self) -> NativeProjector:
        if self._opened is None:
            if self._closed:
                raise EngineFailed("the projector is closed")
            from mullama.engines.llamacpp.binding.media import NativeProjector  # loads libmtmd

            path = self._projector.path
            native = NativeProjector(path, self._model, gpu=self._projector.gpu, threads=self._threads)
            if _ALIGNED in native.kinds:
                native.close()
                raise Unsupported(
                    f"the projector {path} ({_ALIGNED}) cannot be used",
                    hint="the vectors of its images depend on the tokens before them, so no two requests can share one",
                )
            self._opened = native
        return self._opened

    def prepare(self, job: Generate, size: int) -> MediaJob:
        """Return the job with its text as tokens and its media encoded. size: tokens that one request may use.

        Raises `Invalid`, `TooLarge` or `Unsupported` for media that cannot be read, `ContextOverflow` before anything
        is encoded, and `EngineFailed` when an encoder fails.
        """
        if job.suffix is not None or job.echo:
            what = "fill in the middle" if job.suffix is not None else "echo its prompt"
            raise Unsupported(f"a request with media cannot {what}", hint="send text alone for it")
        with self._lock:
            if len(job.media) > 1 and _NUMBERED in self._native.kinds:
                # A run is the same wherever it stands, and this model's positions tell the first image from the second.
                raise Unsupported(f"this model ({_NUMBERED}) reads one image in a request", hint="send one image")
            known, opened = self._read(job)
            try:
                texts = self._texts(job)
                counted = [known[m.digest].parts if m.digest in known else opened[m.digest].pieces.items
                           for m in job.media]  # fmt: skip
                total = sum(map(len, texts)) + sum(map(_tokens_of, counted))
                if total >= size:
                    raise ContextOverflow(total, size)
                for digest, medium in zip(opened, self._encode(list(opened.values())), strict=True):
                    known[digest] = medium
                    self._remember(digest, medium)
            finally:
                for item in opened.values():
                    item.pieces.close()
        return self._placed(job, texts, [known[medium.digest].parts for medium in job.media])

    def count(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt without encoding its media. Errors: as for `prepare`."""
        with self._lock:
            check_media(prompt, self.facts)
            total = sum(map(len, self._texts(prompt)))
            counts: dict[str, int] = {}
            for place, medium in enumerate(prompt.media, start=1):
                if medium.digest not in counts:
                    counts[medium.digest] = self._count(medium, prompt.media_limits, place)
                total += counts[medium.digest]
            return total

    def _count(self, medium: Medium, limits: MediaLimits, place: int) -> int:
        if known := self._known.get(medium.digest):
            known.check(medium, limits, place)
            return _tokens_of(known.parts)
        pieces = self._open(medium, limits, place, count_only=True).pieces
        try:
            return _tokens_of(pieces.items)
        finally:
            pieces.close()

    def _open(self, medium: Medium, limits: MediaLimits, place: int, *, count_only: bool) -> _Opened:
        header = checked(medium, limits, place)
        # miniaudio takes silence for the missing end of a FLAC file.
        other = converted(medium, header, limits, place) if header.format == "flac" else None
        if other is None and header.format not in CONVERTED:
            pieces = self._native.pieces(readable(medium.data, header), count_only=count_only)
            if pieces is not None:
                return _Opened(place, header.seconds, pieces)
        other = other or converted(medium, header, limits, place)
        pieces = None if other is None else self._native.pieces(other.data, count_only=count_only)
        if other is None or pieces is None:
            raise damaged(place, medium.kind)
        return _Opened(place, other.seconds, pieces)

    def _read(self, prompt: Prompt) -> tuple[dict[str, _Known], dict[str, _Opened]]:
        """Return the media that are encoded, and those that are not, decoded, each once."""
        check_media(prompt, self.facts)
        limits = prompt.media_limits
        known: dict[str, _Known] = {}
        opened: dict[str, _Opened] = {}
        try:
            for place, medium in enumerate(prompt.media, start=1):
                if medium.digest in known or medium.digest in opened:
                    continue
                if found := self._known.get(medium.digest):
                    found.check(medium, limits, place)
                    self._known.move_to_end(medium.digest)
                    known[medium.digest] = found
                    continue
                opened[medium.digest] = self._open(medium, limits, place, count_only=False)
        except BaseException:
            for item in opened.values():
                item.pieces.close()
            raise
        return known, opened

    def _texts(self, prompt: Prompt) -> list[list[int]]:
        """Return the tokens before, between and after the media; raise `Invalid` for another number of markers."""
        texts = parts_between(prompt.prompt, self._vocabulary, prompt.joint, prompt.marker)
        if len(texts) - 1 != len(prompt.media):
            raise Invalid(f"the prompt has {len(texts) - 1} places for {len(prompt.media)} media")
        if not texts[-1]:
            raise Invalid("the prompt ends with a medium", hint="put text after it: a question, or a turn's end")
        return texts

    def _encode(self, opened: Sequence[_Opened]) -> list[_Known]:
        """Encode all chunks of these media together, as far as the projector can batch them.

        Raises `Invalid` for a medium whose vectors have a value that is no number.
        """
        chunks = [(medium, item) for medium in opened for item in medium.pieces.items if isinstance(item, MediaChunk)]
        encoded = self._native.encode([chunk for _, chunk in chunks])
        self.encoded += len(chunks)
        for (medium, _), values in zip(chunks, encoded, strict=True):
            if not np.isfinite(values).all():
                # Attention without flash multiplies such a value in masked cells by zero: it reaches other requests.
                raise Invalid(
                    f"{name_of(medium.place)} gives values that are no numbers",
                    hint="write the file again: a sound of floats has samples between -1 and 1",
                )
        vectors = iter(encoded)

        def run(chunk: MediaChunk) -> MediaRun:
            numbers = self.numbers.take(chunk.positions, chunk.tokens)
            return MediaRun(
                numbers=numbers, tokens=chunk.tokens, whole=chunk.whole, vectors=next(vectors), place=chunk.place
            )

        return [
            _Known(medium.seconds, tuple(
                run(item) if isinstance(item, MediaChunk) else _written(item) for item in medium.pieces.items
            ))
            for medium in opened
        ]  # fmt: skip

    def _remember(self, digest: str, medium: _Known) -> None:
        """Keep the vectors of a medium, and forget those that were used longest ago.

        A request keeps its own until its end, so one that is set aside can be computed again.
        """
        if medium.bytes > self._most_bytes:
            return
        self._known[digest] = medium
        self._bytes += medium.bytes
        while self._bytes > self._most_bytes or len(self._known) > _MOST_REMEMBERED:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= forgotten.bytes

    def _placed(self, job: Generate, texts: Sequence[list[int]], media: Iterable[Sequence[Part]]) -> MediaJob:
        tokens = list(texts[0])
        runs: list[PlacedRun] = []
        for parts, text in zip(media, texts[1:], strict=True):
            for part in parts:
                if isinstance(part, MediaRun):
                    runs.append(PlacedRun(start=len(tokens), run=part))
                    tokens += part.numbers
                else:
                    tokens += part
            tokens += text
        fields = {name: getattr(job, name) for name in field_names(job)}
        fields |= {"prompt": tuple(tokens), "runs": tuple(runs), "joint": "", "media": ()}
        # Guesses are switched off: a draft model does not see the media, an n-gram would repeat their numbers, and the
        # nextn layers would need the hidden states of vectors.
        return MediaJob(**fields | {"draft": DraftLimits(most=0)})

    def close(self) -> None:
        """Free the projector; wait for the encode that runs."""
        with self._lock:
            self._known.clear()
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None


def _written(tokens: Iterable[int]) -> list[int]:
    """Return the text around an image. llama.cpp gives -1 for a token that the vocabulary lacks."""
    return [token for token in tokens if token >= 0]


def _tokens_of(items: Iterable[list[int] | MediaRun | MediaChunk]) -> int:
    return sum(len(_written(item)) if isinstance(item, list) else item.tokens for item in items)

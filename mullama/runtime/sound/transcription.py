"""One transcription: the windows of a sound are answered one by one, and their texts joined."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from mullama.chat import types as chat
from mullama.chat.media.wav import wav_file
from mullama.chat.transcription import (
    Segment,
    SegmentFinished,
    Transcribed,
    Transcript,
    TranscriptEvent,
    TranscriptionRequest,
)
from mullama.chat.transcription.joining import TranscriptJoiner
from mullama.chat.transcription.languages import language_name
from mullama.chat.transcription.prompts import TranscriptReader, messages_for
from mullama.errors import Internal, Unsupported
from mullama.runtime.base import Caller
from mullama.runtime.metering import LastAttempt, Metered, RequestResult
from mullama.runtime.snapshot import Deployment
from mullama.runtime.sound.process import HeardWindow, sound_windows
from mullama.runtime.sound.protocol import SoundSettings
from mullama.struct import field_names, replace

TranscriptionEvents = AsyncGenerator[Sequence[chat.Started | TranscriptEvent], None]
AnswerWindow = Callable[
    [chat.ChatRequest, Caller, LastAttempt], AsyncGenerator[Sequence[chat.Event], None]
]  # fmt: skip

_RATE = 16_000
_TOKENS = 20
"""Most tokens for a second of sound: more than people say, so that an answer that repeats itself ends."""
_LEAST_TOKENS = 64
_TIMED = 6.0
"""Seconds of speech after which a pause ends a window whose times are shown."""
_FILLED = 2 / 3
"""Share of a window after which a pause ends it, if no times are shown."""


async def transcript_of(stream: TranscriptionEvents) -> Transcript:
    """Return the transcript at the end of a transcription, and close it. Raises `Internal` without one."""
    async with aclosing(stream):
        async for events in stream:
            if isinstance(events[-1], Transcribed):
                return events[-1].transcript
    raise Internal("a transcription ended without its last event")


class Transcription:
    """One attempt to transcribe a sound with one model."""

    def __init__(
        self,
        request: TranscriptionRequest,
        caller: Caller,
        deployment: Deployment,
        answer: AnswerWindow,
        usage: LastAttempt,
    ) -> None:
        """answer: yields the events of a conversation. usage: gets the sum over all windows."""
        self._request, self._caller, self._deployment = request, caller, deployment
        self._answer, self._usage_of_all = answer, usage
        self._settings = deployment.settings.transcription
        self._language = language_name(asked) if (asked := request.language or self._settings.language) else ""
        own = deployment.settings.sampling.temperature
        self._temperature = own or 0.0 if request.temperature is None else request.temperature
        self._overlap = min(self._settings.overlap, self._settings.window / 4)  # as `audio.windows` cuts
        self._joiner = TranscriptJoiner()
        self._usage = chat.Usage()
        self._segments: list[Segment] = []
        self._last: Segment | None = None  # of the last window, whose words may be held back
        self._text: list[str] = []
        self._warnings: tuple[str, ...] = ()

    async def events(self) -> TranscriptionEvents:
        """Yield the events, see `runtime.base.Service.transcribe`."""
        if "audio" not in self._deployment.settings.media:
            raise Unsupported(
                f'"{self._request.model}" does not hear: it has no projector for sound',
                hint="name a model with the capability audio", field="model",
            )  # fmt: skip
        begun, length, started = time.monotonic(), 0, False
        result: RequestResult = "error"
        try:
            async with aclosing(sound_windows(self._request.sound.file, self._sound_settings())) as windows:
                async for window in windows:
                    length = window.line.length
                    if window.pcm:
                        async with aclosing(self._window(window)) as events:
                            async for some in events:
                                if not started:
                                    started = True
                                    yield (self._started(),)
                                yield some
            if not started:
                yield (self._started(),)
            yield self._end(length / _RATE)
            result = "ok"
        except GeneratorExit:
            result = "cancelled"
            raise
        finally:
            self._meter(result, time.monotonic() - begun)

    def _sound_settings(self) -> SoundSettings:
        settings, voice = self._settings, self._request.voice
        enough = min(_TIMED, settings.window) if self._request.timed else settings.window * _FILLED
        return SoundSettings(
            detector=settings.detector,
            threshold=settings.threshold if voice.threshold is None else voice.threshold,
            speech=settings.speech,
            silence=settings.silence if voice.silence is None else voice.silence,
            pad=settings.pad if voice.pad is None else voice.pad,
            most=settings.window,
            enough=enough,
            overlap=settings.overlap,
            seconds=self._deployment.settings.media_limits.seconds,
        )

    async def _window(self, window: HeardWindow) -> AsyncGenerator[Sequence[TranscriptEvent], None]:
        """Yield the text of a window as it is written; at once, where it has to be joined with its neighbours."""
        reader, line = TranscriptReader(), window.line
        parts: list[str] = []
        tokens: list[chat.TokenLogprob] = []
        joins = bool(line.overlap or line.cut)
        texts = _LiveText(self._joiner)
        asked = self._question(window)
        part = LastAttempt(self._add)
        with part:
            async with aclosing(self._answer(asked, self._caller, part)) as stream:
                async for events in stream:
                    new: list[TranscriptEvent] = []
                    for event in events:
                        if isinstance(event, chat.Started):
                            self._warnings = event.warnings
                        elif isinstance(event, chat.TextDelta):
                            tokens += event.logprobs
                            text = reader.feed(event.text)
                            parts.append(text)
                            if not joins and (text := texts.feed(text)):
                                new.append(self._written(text, event.logprobs))
                    if new:
                        yield new
        parts.append(rest := reader.end())
        if reader.language and not self._language:
            self._language = reader.language
        if joins:
            cut = self._overlap if line.cut else 0.0
            added = self._joiner.add("".join(parts), overlap=line.overlap / _RATE, cut=cut)
            parts = [added]
            if added:
                yield [self._written(added, tuple(tokens))]
        elif rest := texts.feed(rest):
            yield [self._written(rest)]
        self._last = segment = Segment(
            index=len(self._segments),
            start=line.start / _RATE,
            end=(line.start + line.bytes // 2) / _RATE - (self._overlap if line.cut else 0.0),
            text="".join(parts).strip(),
            tokens=tuple(tokens),
            temperature=self._temperature,
            voice=line.voice,
        )
        if segment.text:
            self._segments.append(segment)
            yield [SegmentFinished(segment=segment, heard=segment.end, usage=self._usage)]

    def _question(self, window: HeardWindow) -> chat.ChatRequest:
        request, seconds = self._request, len(window.pcm) / 2 / _RATE
        messages = messages_for(
            self._settings.prompt,
            wav_file(window.pcm),
            language=self._language,
            translate=request.translate,
            context=request.prompt,
        )
        return chat.ChatRequest(
            model=request.model,
            messages=messages,
            sampling=chat.Sampling(temperature=self._temperature),
            max_tokens=_LEAST_TOKENS + round(seconds * _TOKENS),
            think=False,
            think_optional=True,
            logprobs=0 if request.logprobs else None,
            keep_alive=request.keep_alive,
        )

    def _started(self) -> chat.Started:
        return chat.Started(prompt_tokens=0, warnings=self._warnings)

    def _written(self, text: str, logprobs: tuple[chat.TokenLogprob, ...] = ()) -> chat.TextDelta:
        self._text.append(text)
        return chat.TextDelta(text=text, logprobs=logprobs)

    def _end(self, duration: float) -> Sequence[TranscriptEvent]:
        """Return the last events, with the words of a sound that ended where a window was cut."""
        events: list[TranscriptEvent] = []
        if (rest := self._joiner.end()) and self._last is not None:  # the last window was cut
            events.append(self._written(rest))
            text, end = (self._last.text + rest).strip(), self._last.end + self._overlap
            whole = replace(self._last, text=text, end=end)
            if whole.index == len(self._segments):
                events.append(SegmentFinished(segment=whole, heard=end, usage=self._usage))
            self._segments[whole.index :] = [whole]
        transcript = Transcript(
            text="".join(self._text),
            segments=tuple(self._segments),
            duration=duration,
            language=self._language,
            usage=self._usage,
            warnings=self._warnings,
            answered_by=self._deployment.name,
        )
        return [*events, Transcribed(transcript=transcript)]

    def _add(self, ended: Metered) -> None:
        names = field_names(chat.Usage)
        sums = {name: getattr(self._usage, name) + getattr(ended.usage, name) for name in names}
        self._usage = chat.Usage(**sums)

    def _meter(self, result: RequestResult, seconds: float) -> None:
        caller = self._caller
        self._usage_of_all.add(
            Metered(
                key=caller.key, route=caller.route or self._request.model, model=self._deployment.name,
                usage=self._usage, seconds=seconds, result=result,
            )
        )  # fmt: skip


class _LiveText:
    """The text of a window while it is written: without white space around it, with the space before it."""

    def __init__(self, joiner: TranscriptJoiner) -> None:
        self._joiner = joiner
        self._begun = False
        self._space = ""

    def feed(self, piece: str) -> str:
        """Return the text that a further piece adds; white space waits for the text after it."""
        text = self._space + piece
        if not self._begun:
            text = text.lstrip()
        solid = text.rstrip()
        self._space = text[len(solid) :]
        if not solid:
            return ""
        if self._begun:
            self._joiner.note(solid)
            return solid
        self._begun = True
        return self._joiner.give(solid)

"""Transcripts as subtitles: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat.transcription import Segment


def srt(segments: Iterable[Segment]) -> str:
    """Return the segments as SubRip."""
    return "".join(
        f"{number}\n{_time(segment.start, ',')} --> {_time(segment.end, ',')}\n{_line(segment)}\n\n"
        for number, segment in enumerate(segments, start=1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """Return the segments as WebVTT. The characters that WebVTT reads as marks are written as entities."""
    cues = (
        f"{_time(segment.start, '.')} --> {_time(segment.end, '.')}\n{_escaped(_line(segment))}\n\n"
        for segment in segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def _line(segment: Segment) -> str:
    """Return the text on one line: an empty line would end the cue."""
    return " ".join(segment.text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"

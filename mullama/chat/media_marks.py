"""Puts a mark into the text of a conversation for each medium, and finds the marks in the rendered prompt.

A mark is a number between two marker characters. No text of the conversation holds the marker, so no text can forge a
mark, and a template that changes the order of messages changes the order of the media in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mullama.chat.media import Medium
from mullama.chat.token_texts import choose_joint
from mullama.chat.types import MediaPart, Message, TextPart, joint
from mullama.errors import Invalid, Unsupported
from mullama.struct import Struct, replace

MEDIA_MARKER = "<__media__>"
"""The text for a medium in a prompt that is shown, and in llama-server's form of a prompt with media."""


class MediaMarks(Struct, frozen=True, kw_only=True):
    """The marker character and the media of a conversation, in the order of its messages."""

    marker: str = ""
    parts: tuple[MediaPart, ...] = ()

    def placed(self, text: str) -> tuple[str, tuple[Medium, ...]]:
        """Return the rendered text with one marker for each medium, and the media in the order of the text.

        Raises `Unsupported` for a text without one of the media.
        """
        if not self.parts:
            return text, ()
        pieces = text.split(self.marker)
        numbers = [int(piece) for piece in pieces[1::2] if piece.isdecimal() and int(piece) < len(self.parts)]
        missing = sorted(set(range(len(self.parts))).difference(numbers))
        if missing or 2 * len(numbers) + 1 != len(pieces):
            place = self.parts[missing[0]].place if missing else ""
            raise Unsupported(
                f"the chat template leaves out {place or 'a medium of the conversation'}",
                hint="send the medium in a message of the user",
                field=place or "messages",
            )
        media = [_medium(part) for part in self.parts]
        return self.marker.join(pieces[::2]), tuple(media[number] for number in numbers)


NO_MARKS = MediaMarks()


def mark_media(messages: Sequence[Message], texts: Iterable[str]) -> tuple[tuple[Message, ...], MediaMarks]:
    """Return the messages with a mark in the place of each medium.

    texts: every text that can be part of the prompt.
    """
    parts = tuple(media_of(messages))
    if not parts:
        return tuple(messages), NO_MARKS
    marker = choose_joint(tuple(texts))
    made, number = [], 0
    for message in messages:
        count = sum(isinstance(part, MediaPart) for part in message.content)
        made.append(_marked(message, marker, number) if count else message)
        number += count
    return tuple(made), MediaMarks(marker=marker, parts=parts)


def split_prompt(text: str, parts: tuple[MediaPart, ...]) -> tuple[str, str, tuple[Medium, ...]]:
    """Return a prompt that holds a placeholder for each medium as its text, its marker, and the media.

    Raises `Invalid` for another number of placeholders.
    """
    pieces = text.split(MEDIA_MARKER)
    if len(pieces) - 1 != len(parts):
        raise Invalid(
            f"the prompt has {len(pieces) - 1} times {MEDIA_MARKER} and {len(parts)} media",
            hint=f"write {MEDIA_MARKER} once in the place of each medium",
            field="prompt",
        )
    marker = choose_joint((text,))
    return marker.join(pieces), marker, tuple(map(_medium, parts))


def media_of(messages: Iterable[Message]) -> Iterable[MediaPart]:
    """Yield the media of a conversation in order."""
    return (part for message in messages for part in message.content if isinstance(part, MediaPart))


def _marked(message: Message, marker: str, number: int) -> Message:
    """Return the message as one text; texts without a medium between them are joined as `Message.text` joins them."""
    text, after_text = "", False
    for part in message.content:
        if isinstance(part, TextPart):
            text += (joint(text, part.text) if after_text else "") + part.text
        else:
            text += f"{marker}{number}{marker}"
            number += 1
        after_text = isinstance(part, TextPart)
    return replace(message, content=(TextPart(text=text),))


def _medium(part: MediaPart) -> Medium:
    return Medium.of(part.kind, part.data or b"")

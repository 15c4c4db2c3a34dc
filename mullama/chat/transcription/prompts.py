"""The prompts by which models that hear are asked to write down speech, and the form of their answers.

llama.cpp has no decoder of Whisper's kind: these models are language models that read a sound in a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mullama.chat.types import MediaPart, Message, TextPart, text_message
from mullama.struct import Struct

_OPTIONAL = re.compile(r"\[([^\[\]]*\{language\}[^\[\]]*)\]")


class TranscriptionPrompt(Struct, frozen=True, kw_only=True):
    """The texts of the question to a model. A part in brackets with `{language}` is used if the language is known."""

    instruction: str = "Transcribe the audio to text[ in {language}]. Write only the words that are spoken."
    translation: str = "Translate the speech in the audio[ from {language}] into English. Write only the translation."
    system: str = ""
    sound_first: bool = False
    """The sound stands before the instruction."""


class TranscriptionSettings(Struct, frozen=True, kw_only=True):
    """How a model writes down speech. Durations in seconds; those of voice activity as in `audio.voice`."""

    only: bool = False
    """The model answers no conversations."""
    prompt: TranscriptionPrompt = TranscriptionPrompt()
    language: str = ""
    """Code of the language for requests that name none; "" for any."""
    window: float = 30.0
    """Most sound that the model hears at once."""
    overlap: float = 2.0
    """Sound that two windows share where speech without a pause is cut."""
    detector: str = "auto"
    """Detector of voices: auto, energy or silero."""
    threshold: float = 0.5
    speech: float = 0.1
    silence: float = 0.5
    pad: float = 0.2


_ASR: Final = TranscriptionPrompt(instruction="", translation="")
# By the type of the projector (clip.audio.projector_type). The texts are those of the model cards.
PROMPTS: Final[Mapping[str, TranscriptionPrompt]] = {
    "qwen3a": _ASR,  # Qwen3-ASR is trained to write the language and the text for a sound alone
    "lfm2a": TranscriptionPrompt(instruction="", system="Perform ASR."),
    "gemma3na": TranscriptionPrompt(
        instruction="Transcribe the following speech segment[ in {language} into {language} text]:",
        translation="Translate the following speech segment[ from {language}] into English text:",
    ),
    "gemma4a": TranscriptionPrompt(
        instruction="Transcribe the following speech segment[ in {language} into {language} text]:",
        translation="Translate the following speech segment[ from {language}] into English text:",
    ),
    "granite_speech": TranscriptionPrompt(
        instruction="can you transcribe the speech into a written format?",
        translation="can you translate the speech into English?",
        sound_first=True,
    ),
    "voxtral": TranscriptionPrompt(sound_first=True),
    "qwen2a": TranscriptionPrompt(sound_first=True),
}


def prompt_for(projector: str, instruction: str | None, translation: str | None) -> TranscriptionPrompt:
    """Return the prompt of a model. projector: its type. The texts of the manifest, if any, replace the defaults."""
    found = PROMPTS.get(projector, TranscriptionPrompt())
    return TranscriptionPrompt(
        instruction=found.instruction if instruction is None else instruction,
        translation=found.translation if translation is None else translation,
        system=found.system if instruction is None else "",
        sound_first=found.sound_first,
    )


def filled(template: str, language: str) -> str:
    """Return an instruction for a language; "" for one that is not known."""
    text = _OPTIONAL.sub(lambda part: part[1] if language else "", template)
    return text.replace("{language}", language or "its language").strip()


def messages_for(
    prompt: TranscriptionPrompt, sound: bytes, *, language: str, translate: bool, context: str
) -> tuple[Message, ...]:
    """Return the conversation that asks for the text of a window.

    sound: a WAV file. context: names and words that may occur.
    """
    system = prompt.system
    asked = filled(prompt.translation if translate else prompt.instruction, language)
    if context and not asked:
        system = f"{system}\n{context}".strip()
    elif context:
        asked = f"{asked}\nThese names and words may occur: {context}"
    texts = (TextPart(text=asked),) if asked else ()
    part = (MediaPart(kind="audio", data=sound, place="file"),)
    content = (*part, *texts) if prompt.sound_first else (*texts, *part)
    opening = (text_message("system", system),) if system else ()
    return (*opening, Message(role="user", content=content))


_TAGGED = re.compile(r"\s*language ([A-Za-z ]{1,40}?)\s*<asr_text>\s*")
_LONGEST_TAG = 60


class TranscriptReader:
    """Takes the pieces of an answer, and keeps what is not speech out of the text: the tag of Qwen3-ASR."""

    def __init__(self) -> None:
        self._held: str | None = ""  # the beginning, until it cannot become a tag
        self.language = ""
        """The language that the answer names; "" if it names none."""

    def feed(self, piece: str) -> str:
        """Return the text that a further piece gives."""
        if self._held is None:
            return piece
        self._held += piece
        if found := _TAGGED.match(self._held):
            rest, self._held = self._held[found.end() :], None
            self.language = "" if found[1] == "None" else found[1]
            return rest
        begin = self._held.lstrip()
        if len(begin) < _LONGEST_TAG and (begin.startswith("language ") or "language ".startswith(begin)):
            return ""
        return self.end()

    def end(self) -> str:
        """Return the text that was held back."""
        held, self._held = self._held or "", None
        return held

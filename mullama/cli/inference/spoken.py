"""The state of a spoken conversation, from the events of the server. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.struct import Struct

YOU = "you"
SETTINGS = "settings"
"""The `event_id` of the change of the session that carries the settings."""


class SpokenLine(Struct, frozen=True, kw_only=True):
    """One turn of the speaker or of the model."""

    speaker: str
    text: str


class Spoken:
    """Follows the events of a session, and returns lines as they are complete."""

    def __init__(self) -> None:
        self.model = ""
        self.state = "connecting"
        self.turns = 0
        """Turns of the speaker so far."""
        self.pending = False
        """A turn is not answered yet."""
        self.updates = 0
        """Changes of the settings that the server confirmed."""
        self.errors: list[str] = []
        """Errors that are not shown yet."""
        self.refused = ""
        """The reason for which the server refused the settings of the session."""
        self._heard = ""
        self._answer = ""
        self._wordless = False

    @property
    def current(self) -> list[SpokenLine]:
        """The lines that are not complete."""
        lines = (SpokenLine(speaker=YOU, text=self._heard), SpokenLine(speaker=self.model, text=self._answer))
        return [line for line in lines if line.text]

    def feed(self, event: Mapping[str, Any]) -> list[SpokenLine]:
        """Process an event; return the lines that it completes."""
        match event.get("type"):
            case "session.created":
                self.model, self.state = str(event["session"].get("model") or "model"), "listening"
            case "session.updated":
                self.updates += 1
            case "input_audio_buffer.speech_started":
                self.state = "hearing you"
            case "input_audio_buffer.committed":
                self.turns, self.pending, self.state = self.turns + 1, True, "thinking"
            case "conversation.item.input_audio_transcription.delta":
                self._heard += str(event.get("delta") or "")
            case "conversation.item.input_audio_transcription.completed":
                return self._transcribed(str(event.get("transcript") or "").strip())
            case "conversation.item.input_audio_transcription.failed":
                self._heard, self.pending, self.state = "", False, "listening"
                self.errors.append(f"the speech was not transcribed: {event['error'].get('message')}")
            case "response.created":
                self.state = "answering"
            case "response.output_text.delta":
                self._answer += str(event.get("delta") or "")
            case "response.done":
                return self._answered(event["response"])
            case "error" if event["error"].get("event_id") == SETTINGS:
                self.refused = str(event["error"].get("message"))
            case "error":
                self.pending, self.state = False, "listening"
                self.errors.append(str(event["error"].get("message")))
            case _:
                pass
        return []

    def _transcribed(self, text: str) -> list[SpokenLine]:
        self._heard = ""
        if not text:  # a noise, which is not answered
            self.pending, self.state = False, "listening"
            return []
        return [SpokenLine(speaker=YOU, text=text)]

    def _answered(self, response: Mapping[str, Any]) -> list[SpokenLine]:
        text, self._answer = self._answer.strip(), ""
        details = response.get("status_details") or {}
        interrupted = response.get("status") == "cancelled"
        if not interrupted:
            self.pending, self.state = False, "listening"
        if response.get("status") == "failed":
            self.errors.append(str((details.get("error") or {}).get("message") or "the answer failed"))
        if not text:
            return []
        return [SpokenLine(speaker=self.model, text=f"{text} …" if interrupted else text)]

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
        self.updates = 0
        """Changes of the settings that the server confirmed."""
        self.errors: list[str] = []
        """Errors that are not shown yet."""
        self.refused = ""
        """The reason for which the server refused the settings of the session."""
        self._heard = ""
        self._answer = ""
        self._asked: set[str] = set()  # turns, by the id of their items, that no answer has begun for
        self._answering = False

    @property
    def pending(self) -> bool:
        """A turn is not answered yet."""
        return self._answering or bool(self._asked)

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
                self._asked.add(str(event.get("item_id")))
                self.turns, self.state = self.turns + 1, "thinking"
            case "conversation.item.input_audio_transcription.delta":
                self._heard += str(event.get("delta") or "")
            case "conversation.item.input_audio_transcription.completed":
                return self._transcribed(event, str(event.get("transcript") or "").strip())
            case "conversation.item.input_audio_transcription.failed":
                self._heard = ""
                self._dismiss(event)
                self.errors.append(f"the speech was not transcribed: {event['error'].get('message')}")
            case "response.created":
                self._asked.clear()  # an answer is one to all turns before it
                self._answering, self.state = True, "answering"
            case "response.output_text.delta":
                self._answer += str(event.get("delta") or "")
            case "response.done":
                return self._answered(event["response"])
            case "error" if event["error"].get("event_id") == SETTINGS:
                self.refused = str(event["error"].get("message"))
            case "error":
                self._asked.clear()
                self.state = "answering" if self._answering else "listening"
                self.errors.append(str(event["error"].get("message")))
            case _:
                pass
        return []

    def _dismiss(self, event: Mapping[str, Any]) -> None:
        """Expect no answer to a turn."""
        self._asked.discard(str(event.get("item_id")))
        if not self.pending:
            self.state = "listening"

    def _transcribed(self, event: Mapping[str, Any], text: str) -> list[SpokenLine]:
        self._heard = ""
        if not text:  # a noise, which is not answered
            self._dismiss(event)
            return []
        return [SpokenLine(speaker=YOU, text=text)]

    def _answered(self, response: Mapping[str, Any]) -> list[SpokenLine]:
        text, self._answer = self._answer.strip(), ""
        details = response.get("status_details") or {}
        interrupted, self._answering = response.get("status") == "cancelled", False
        if not self.pending:
            self.state = "hearing you" if interrupted else "listening"
        if response.get("status") == "failed":
            self.errors.append(str((details.get("error") or {}).get("message") or "the answer failed"))
        if not text:
            return []
        return [SpokenLine(speaker=self.model, text=f"{text} …" if interrupted else text)]

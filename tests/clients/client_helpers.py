"""What the tests of this folder ask for: turns, tools and schemas in the forms of the three APIs."""

from __future__ import annotations

import json
from typing import Any

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
OSLO = "What is the weather in Oslo?"
FRANCE = "What is the capital of France?"
ADA = "Give me a JSON object with name and age for Ada."


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def function(name: str = "get_weather", parameters: dict[str, Any] = WEATHER, **more: Any) -> Any:
    """A tool as chat completions and Ollama take it."""
    about = {"name": name, "description": f"the {name}", "parameters": parameters, **more}
    return {"type": "function", "function": about}


def flat(name: str = "get_weather", parameters: dict[str, Any] = WEATHER) -> Any:
    """A tool as the Responses API takes it."""
    return {"type": "function", "name": name, "description": f"the {name}", "parameters": parameters, "strict": False}


def block(name: str = "get_weather", parameters: dict[str, Any] = WEATHER) -> Any:
    """A tool as Anthropic takes it."""
    return {"name": name, "description": f"the {name}", "input_schema": parameters}


def calling(*calls: tuple[str, dict[str, Any]]) -> str:
    """What makes the scripted model call these tools."""
    said = [f"<tool_call>\n{json.dumps({'name': name, 'arguments': given})}\n</tool_call>" for name, given in calls]
    return "say " + "\n".join(said)

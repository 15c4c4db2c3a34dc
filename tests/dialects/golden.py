"""Recorded conversations, one file each: the request, the events that answer it, and what goes over the wire.

`python -m tests.dialects.golden` writes the recorded parts anew; the difference is reviewed like code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mullama.chat.answer import fold
from mullama.dialects.base import StaticReply, WireRequest, is_streamed
from mullama.errors import MullamaError
from tests.dialects.wire import CONTEXT, encode, event_of, route, shown, shown_frame, shown_reply, stream

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*/*.json"))


def replay(said: dict[str, Any]) -> dict[str, Any]:
    """What the dialect makes of the request and the events now."""
    request = said["request"]
    headers = request.get("headers", {})
    found = route(request.get("method", "POST"), request["path"], headers)
    assert found is not None, f"no endpoint for {request['path']}"
    dialect, endpoint, params = found
    wire = WireRequest(body=request.get("body"), path=params, query=request.get("query", {}), headers=headers)
    try:
        operation = endpoint.decode(wire)
    except MullamaError as error:
        return {"error": shown_reply(dialect.error(error, f"req_{CONTEXT.id}"))}
    if said.get("stored"):
        assert endpoint.resume is not None
        operation = endpoint.resume(operation, {k: event_of(v) for k, v in said["stored"].items()})
    made: dict[str, Any] = {"operation": shown(operation)}
    if isinstance(operation, StaticReply):
        made["reply"] = shown_reply(encode(endpoint, operation, None))
        return made
    if "result" in said:
        made["reply"] = shown_reply(encode(endpoint, operation, event_of(said["result"])))
        return made
    events = [event_of(value) for value in said.get("events", ())]
    if endpoint.stream is not None and is_streamed(operation):
        encoder = stream(endpoint, operation)
        frames = []
        for event in events:
            frames += encoder.fail(event) if isinstance(event, MullamaError) else encoder.feed(event)
        made["frames"] = [shown_frame(frame) for frame in frames]
    elif events:
        made["reply"] = shown_reply(encode(endpoint, operation, fold(events)))
    return made


def written(value: Any, depth: int = 0) -> str:
    """JSON for eyes: what fits on a line stands on one, and so does every event and frame."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(line) <= 140 or depth > 3:
        return line
    pad = "  " * (depth + 1)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(k)}: {written(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + "  " * depth + "}"
    inner = [pad + written(v, 4 if depth == 1 else depth + 1) for v in value]
    return "[\n" + ",\n".join(inner) + "\n" + "  " * depth + "]"


def main() -> None:
    for path in FILES:
        said = json.loads(path.read_text(encoding="utf-8"))
        kept = {k: said[k] for k in ("about", "request", "stored", "events", "result") if k in said}
        recorded = {**kept, **replay(kept)}
        path.write_text(written(recorded) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

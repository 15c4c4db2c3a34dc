"""Everything that the status has about one model, as rows of a name and a text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mullama.cli.page.cells import PageCell, cell
from mullama.cli.page.live import LiveView, models_of, severity
from mullama.cli.page.model_table import reason, state_cell
from mullama.units import counted, duration, size

_EVENTS = 8


def model_details(view: LiveView, name: str, now: float) -> tuple[tuple[str, PageCell], ...]:
    """Return the rows of a model; one row for a model that is gone. now: Unix seconds."""
    model = next((row for row in view.models if row["name"] == name), None)
    if model is None:
        return (("state", cell("this model is not served any more", "warning")),)
    return tuple(_rows(view, model, now))


def _rows(view: LiveView, model: Mapping[str, Any], now: float) -> Iterator[tuple[str, PageCell]]:
    name = str(model["name"])
    yield "state", state_cell(model)
    text, tone = reason(view, model)
    if text:
        yield "reason", cell(text, tone)
    for condition in model.get("conditions") or ():
        truth = "true" if condition["status"] else "false"
        message = f": {condition['message']}" if condition.get("message") else ""
        yield "condition", cell(f"{condition['type']}={truth} {condition.get('reason') or ''}{message}")
    for warning in model.get("warnings") or ():
        yield "warning", cell(warning, "warning")
    if routes := [route for route, to in (view.status.get("routes") or {}).items() if to == name]:
        yield "routes", cell(", ".join(routes))
    if model.get("beside_manifest"):
        yield "origin", cell("added by a command, not in the manifest")
    yield "source", cell(model.get("source") or "-")
    yield "file", cell(f"{size(int(model.get('size') or 0))}, {str(model.get('digest') or '-')[:26]}")
    yield "revision", cell(f"{str(model.get('revision') or '-')[:12]}, from revision {model.get('generation')}")
    if (declared := model.get("declared")) and declared != model.get("revision"):
        yield "declared", cell(f"{declared[:12]}, which is not what runs", "warning")
    yield "memory", cell(_memory(model))
    for device in model.get("devices") or ():
        layers = f", {counted(device['layers'], 'layer')}" if device.get("layers") else ""
        yield "device", cell(f"{device['name']}: {size(int(device['bytes']))}{layers}")
    yield "context", cell(f"{int(model.get('context_size') or 0):,} tokens, {model.get('parallel')} requests at once")
    if pool := model.get("pool"):
        aside = f", {counted(pool['set_aside'], 'request')} set aside" if pool["set_aside"] else ""
        yield "pool", cell(f"{pool['used']:,} of {pool['size']:,} tokens in use{aside}")
    yield "requests", cell(f"{model.get('active') or 0} running, {model.get('waiting') or 0} waiting")
    if speeds := [speed for speed in view.speeds(name) if speed]:
        yield "speed", cell(f"{view.speeds(name)[-1]:.1f} tokens/s now, {max(speeds):.1f} at most")
    if (draft := model.get("draft")) and draft["guessed"]:
        yield "guesses", cell(f"{draft['kind']}, {draft['accepted'] / draft['guessed']:.0%} of {draft['guessed']:,}")
    if (kept := model.get("checkpoints")) and kept["count"]:
        yield "checkpoints", cell(f"{kept['count']}, {size(kept['bytes'])} of {size(kept['most_bytes'])}")
    yield "residency", cell(_residency(model, now))
    if model.get("worker"):
        yield "worker", cell(f"pid {model['worker']}")
    events = [event for event in view.events if name in models_of(event)]
    for event in reversed(events[-_EVENTS:]):
        bad = severity(event)
        shown = cell(f"{duration(max(0.0, now - event['when']))} ago, {event['kind']}: {event.get('message') or ''}")
        yield "event", shown._replace(tone="error" if bad == "error" else "warning" if bad == "warning" else "dim")


def _memory(model: Mapping[str, Any]) -> str:
    memory, own, shared = int(model.get("memory") or 0), model.get("memory_own"), model.get("shared_with")
    if not memory:
        return "not loaded"
    return f"{size(int(own or 0))} of its own, weights of {shared}" if shared else size(memory)


def _residency(model: Mapping[str, Any], now: float) -> str:
    words = [str(model.get("load") or "-").replace("_", " ")]
    if isinstance(model.get("ttl"), (int, float)):
        words.append(f"unloaded after {duration(model['ttl'])} without a request")
    if isinstance(model.get("expires"), (int, float)):
        words.append(f"in {duration(max(0.0, model['expires'] - now))}")
    return ", ".join(words)

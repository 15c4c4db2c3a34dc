"""The lines above the table of models: the server, its conditions, and the memory by device. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mullama.cli.page.cells import CellTone, PageCell, bar, cell
from mullama.units import size

_SHOWN_WHEN_TRUE = ("Reconciling", "Degraded", "Drifted")
_BAR = 20  # characters at most
_NAME = 12


class DeviceBudget(NamedTuple):
    """The memory of one device in bytes."""

    name: str
    used: int
    """By models."""
    limit: int
    """The budget of the manifest, else the size of the device; 0 if neither is known."""
    budgeted: bool
    free: int
    """Bytes that no program uses."""
    fault: str = ""


def headline(status: Mapping[str, Any], connection: str, width: int) -> tuple[PageCell, ...]:
    """Return the parts of the first line that fit. connection: `live`, `connecting` or a word for the loss."""
    state = str(status.get("state") or "")
    origin = status.get("origin") or {}
    tones: Mapping[str, CellTone] = {"ready": "good", "degraded": "warning", "reconciling": "busy", "starting": "busy"}
    parts = [
        cell(connection, "good" if connection == "live" else "error" if connection == "lost" else "busy"),
        cell(state, tones.get(state, "warning")),
    ]
    if status:
        path = origin.get("path")
        of = f" of {str(path).rpartition('/')[2]}" if path else ""
        commit = f" at {str(origin['commit'])[:12]}" if origin.get("commit") else ""
        revision = f"revision {status.get('generation')}"
        room = width - sum(len(part.text) + 3 for part in parts)
        parts.append(cell(f"{revision}{of}{commit}" if len(revision + of + commit) <= room else revision))
        parts += [cell(f"profile {name}") for name in origin.get("profiles") or ()]
        parts.append(cell(f"mullama {status.get('version')}", "dim"))
        parts.append(cell(", ".join(status.get("listen") or ("no address",)), "dim"))
    shown: list[PageCell] = []
    room = width
    for part in parts:
        need = len(part.text) + (3 if shown else 0)
        if part.text and need <= room:
            shown.append(part)
            room -= need
    return tuple(shown)


def conditions(status: Mapping[str, Any]) -> tuple[PageCell, ...]:
    """Return one cell for each condition of the server that needs attention."""
    found: list[PageCell] = []
    for one in status.get("conditions") or ():
        if bool(one["status"]) != (one["type"] in _SHOWN_WHEN_TRUE):
            continue
        tone: CellTone = "busy" if one["type"] == "Reconciling" else "warning"
        text = f"{one['type']}={'true' if one['status'] else 'false'} {one.get('reason') or ''}".rstrip()
        found.append(cell(f"! {text}: {one['message']}" if one.get("message") else f"! {text}", tone))
    return tuple(found)


def devices(status: Mapping[str, Any], budget: Mapping[str, Any]) -> tuple[DeviceBudget, ...]:
    """Return main memory and each device. budget: `hardware.budget` of the applied manifest, {} if it is not known."""
    machine = status.get("machine") or {}
    on_devices: dict[str, int] = {}
    for model in status.get("models") or ():
        for device in model.get("devices") or ():
            on_devices[device["name"]] = on_devices.get(device["name"], 0) + int(device["bytes"])
    total, used = int(machine.get("ram_total") or 0), int((status.get("memory") or {}).get("used") or 0)
    found: list[DeviceBudget] = []
    if total:
        free = int(machine.get("ram_available") or 0)
        found.append(_use("main memory", used - sum(on_devices.values()), total, budget.get("ram"), free))
    shares = budget.get("gpu") or {}
    for number, gpu in enumerate(machine.get("gpus") or ()):
        share = shares.get(gpu["name"], shares.get(str(number)))
        use = _use(gpu["name"], on_devices.get(gpu["name"], 0), int(gpu["total"]), share, gpu["free"])
        found.append(use._replace(fault=str(gpu.get("fault") or "")))
    return tuple(found)


def _use(name: str, used: int, total: int, share: object, free: int) -> DeviceBudget:
    """share: bytes, a part of the total up to 1, or None without a budget."""
    limit = total
    if isinstance(share, (int, float)):
        limit = int(share * total) if isinstance(share, float) and share <= 1 else int(share)
    return DeviceBudget(name, max(0, used), limit, share is not None, int(free))


def device_line(use: DeviceBudget, width: int) -> tuple[PageCell, ...]:
    """Return a bar of one device, and its numbers as far as they fit into `width` characters."""
    if use.fault:
        return (cell(f"{use.name:<{_NAME}}", "dim"), cell(use.fault, "error"))
    name = cell(use.name).text[:_NAME].ljust(_NAME)
    numbers = f"{size(use.used)} of {size(use.limit)}" + (" budget" if use.budgeted else "")
    free = f", {size(use.free)} free"
    room = width - len(name) - len(numbers) - 2
    length = min(_BAR, room)
    share = use.used / use.limit if use.limit else 0.0
    tone: CellTone = "error" if share > 1 else "warning" if share > 0.9 else "accent"
    parts = [PageCell(name, "dim")]
    if length >= 4:
        parts.append(PageCell(f"{bar(use.used, use.limit, length)} ", tone))
    parts.append(PageCell(numbers))
    if room - length >= len(free):
        parts.append(PageCell(free, "dim"))
    return tuple(parts)

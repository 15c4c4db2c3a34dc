"""What an apply has told so far, folded from the server's events; pure, so that every view shows the same facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mullama.units import duration, size

PHASES = {
    "wait": "waiting for the change that runs now",
    "fetch": "fetching files",
    "commit": "committing the revision",
    "load": "loading models",
    "swap": "switching to the new revision",
    "drain": "letting running requests end",
    "prune": "removing unused files",
}


def amounts(done: int, total: int | None, *, resumed: int = 0, speed: float = 0.0, message: str = "") -> str:
    """`1 MiB of 4 MiB, 512 KiB resumed, 2 MiB/s, 2 s left`; speed is bytes per second, 0 for unknown."""
    parts = [f"{size(done)} of {size(total)}" if total else size(done)]
    if resumed:
        parts.append(f"{size(resumed)} resumed")
    if speed > 0 and done != total:
        parts.append(f"{size(int(speed))}/s")
        if total:
            parts.append(f"{duration((total - done) / speed)} left")
    if message:
        parts.append(message)
    return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One file on its way: bytes done, in all (None when the source does not say) and resumed, bytes per second."""

    model: str
    file: str
    done: int
    total: int | None
    speed: float
    resumed: int = 0
    phase: str = "downloading"
    message: str = ""

    @property
    def tenth(self) -> int:
        """How many tenths are done, 10 for the whole file; what a quiet view reports by."""
        return self.done * 10 // self.total if self.total else 0

    @property
    def whole(self) -> bool:
        return self.total is not None and self.done >= self.total

    def __str__(self) -> str:
        """`verifying 1 MiB of 2 MiB`; only where nothing else is said it is downloading."""
        speed = self.speed if self.phase == "downloading" else 0.0
        told = amounts(self.done, self.total, resumed=self.resumed, speed=speed, message=self.message)
        return f"{self.phase} {told}" if self.phase in ("verifying", "waiting", "retrying") else told


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    state: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyProgress:
    """Everything told until now. `result` is the last event, None while the apply runs."""

    phase: str = ""
    committed: bool = False
    models: Mapping[str, ModelState] = field(default_factory=dict)
    downloads: Mapping[tuple[str, str], Download] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None


def fold(progress: ApplyProgress, event: Mapping[str, Any]) -> ApplyProgress:
    """The progress after one more event; events of kinds that are not known change nothing."""
    match event.get("event"):
        case "phase":
            phase = str(event["phase"])
            committed = progress.committed or phase in ("load", "swap", "drain", "prune")
            return replace(progress, phase=phase, committed=committed)
        case "fetch":
            download = _download(event)
            key = (download.model, download.file)
            return replace(progress, downloads={**progress.downloads, key: download})
        case "step":
            state = ModelState(state=str(event["state"]), message=str(event.get("message") or ""))
            return replace(progress, models={**progress.models, str(event["model"]): state})
        case "warning":
            return replace(progress, warnings=(*progress.warnings, str(event["message"])))
        case "result":
            committed = progress.committed or event.get("exit") in (0, 8)
            return replace(progress, result=event, committed=committed)
        case _:
            return progress


def news(before: ApplyProgress, after: ApplyProgress) -> tuple[str, ...]:
    """The lines that a log should hold for this event: each change once, downloads in tenths."""
    lines: list[str] = []
    if after.phase != before.phase:
        lines.append(PHASES.get(after.phase, after.phase))
    for key, download in after.downloads.items():
        known = before.downloads.get(key)
        if known is None or download.tenth > known.tenth:
            lines.append(f"  {download.model}: {download.file}: {download}")
    for name, state in after.models.items():
        if before.models.get(name) != state:
            lines.append(f"  {name}: {state.state}" + (f": {state.message}" if state.message else ""))
    lines += [f"warning: {text}" for text in after.warnings[len(before.warnings) :]]
    return tuple(lines)


def verdict(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The last lines: what came of each model that failed, then of the whole."""
    failed = [
        f"{name}: {answer.get('message') or 'failed'}"
        for name, answer in (result.get("models") or {}).items()
        if not answer.get("ok", True)
    ]
    return (*failed, str(result.get("message") or _default_message(result)))


def _default_message(result: Mapping[str, Any]) -> str:
    match result["exit"]:
        case 0:
            return f"revision {result.get('generation')} is applied"
        case 8:
            return f"revision {result.get('generation')} is applied in part"
        case code:
            return f"not applied (exit {code})"


def _download(event: Mapping[str, Any]) -> Download:
    total = event.get("total")
    return Download(
        model=str(event.get("model") or ""),
        file=str(event.get("file") or ""),
        done=int(event.get("done") or 0),
        total=int(total) if total else None,
        speed=float(event.get("speed") or 0.0),
        resumed=int(event.get("resumed") or 0),
        phase=str(event.get("phase") or "downloading"),
        message=str(event.get("message") or ""),
    )

"""Progress as values and as lines of text: files in transfer, and an apply folded from the server's events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from mullama.sources.base import DownloadProgress, Phase
from mullama.struct import Struct, field, replace
from mullama.units import duration, size

PHASES = {
    "wait": "waiting for the running change",
    "fetch": "fetching files",
    "commit": "committing the revision",
    "load": "loading models",
    "swap": "switching to the new revision",
    "drain": "waiting for running requests",
    "prune": "removing unused files",
}
"""Phases of an apply, as the server names them and as a terminal shows them."""

_OUTCOMES = ("applied", "partly_applied")  # of an apply that committed a revision
_COMMITTED = ("load", "swap", "drain", "prune")
_REPORTED = ("downloading", "verifying", "sending", "retrying", "waiting")
_DELAYED = ("retrying", "waiting")


def read_progress(tree: Mapping[str, Any]) -> DownloadProgress | None:
    """Return the file progress of an apply event or a task line; None if the object describes something else."""
    phase: Any = tree.get("phase", "downloading")
    file, total = tree.get("file"), tree.get("total")
    if not file or phase not in get_args(Phase):
        return None
    return DownloadProgress(
        file=str(file),
        phase=phase,
        completed=int(tree.get("completed", tree.get("done")) or 0),  # apply events call it `done`
        total=int(total) if total else None,
        resumed=int(tree.get("resumed") or 0),
        message=str(tree.get("message") or ""),
        origin=str(tree.get("origin") or ""),
    )


def is_complete(progress: DownloadProgress) -> bool:
    """Return True if all bytes of the file are transferred."""
    return progress.phase == "done" or (progress.total is not None and progress.completed >= progress.total)


def amounts(progress: DownloadProgress, speed: float | None = None) -> str:
    """Return `25 %, 1 MiB of 4 MiB, 512 KiB resumed, 1 MiB/s, 3 s left`. speed: bytes per second, None if unknown."""
    done, total = progress.completed, progress.total
    parts = [f"{100 * done // total} %, {size(done)} of {size(total)}" if total else size(done)]
    if progress.resumed:
        parts.append(f"{size(progress.resumed)} resumed")
    if speed and not is_complete(progress):
        parts.append(f"{size(int(speed))}/s")
        if total:
            parts.append(f"{duration((total - done) / speed)} left")
    if progress.message:
        parts.append(progress.message)
    return ", ".join(parts)


def phase_line(before: DownloadProgress | None, progress: DownloadProgress) -> str | None:
    """Return the line of a log for a file that begins, such as `downloading a.gguf: 4 GiB`, or that is delayed.

    A file without a delay has one line: its end and its verification are not reported.
    """
    known = before is not None and before.phase not in ("found", "resuming", "verifying")
    if progress.phase not in _REPORTED or (known and progress.phase not in _DELAYED):
        return None
    if before is not None and before.phase == progress.phase:
        return None
    facts = [size(progress.total)] if progress.total else []
    facts += [f"{size(progress.resumed)} resumed"] if progress.resumed else []
    facts += [f"from {progress.origin}"] if progress.phase == "downloading" and progress.origin else []
    facts += [progress.message] if progress.message else []
    return f"{progress.phase} {progress.file}" + (f": {', '.join(facts)}" if facts else "")


class ModelState(Struct, frozen=True, kw_only=True):
    """State of one model during an apply: `loading`, `ready`, `failed` or `idle`."""

    state: str
    message: str = ""


class ApplyProgress(Struct, frozen=True, kw_only=True):
    """State of an apply after the events received so far."""

    phase: str = ""
    """Key of `PHASES`."""
    committed: bool = False
    models: Mapping[str, ModelState] = field(default_factory=dict)
    downloads: Mapping[tuple[str, str], DownloadProgress] = field(default_factory=dict)
    """Latest progress by model and file."""
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None
    """The last event; None while the apply runs."""


def fold(progress: ApplyProgress, event: Mapping[str, Any]) -> ApplyProgress:
    """Return the progress after one more event. Unknown events change nothing."""
    match event.get("event"):
        case "phase":
            phase = str(event["phase"])
            return replace(progress, phase=phase, committed=progress.committed or phase in _COMMITTED)
        case "fetch":
            download = read_progress(event)
            if download is None:
                return progress
            key = (str(event.get("model") or ""), download.file)
            return replace(progress, downloads={**progress.downloads, key: download})
        case "step":
            state = ModelState(state=str(event["state"]), message=str(event.get("message") or ""))
            return replace(progress, models={**progress.models, str(event["model"]): state})
        case "warning":
            return replace(progress, warnings=(*progress.warnings, str(event["message"])))
        case "result":
            return replace(progress, result=event, committed=progress.committed or event.get("outcome") in _OUTCOMES)
        case _:
            return progress


def log_lines(before: ApplyProgress, after: ApplyProgress) -> tuple[str, ...]:
    """Return the lines of a log for one event: each phase, file, model state and warning once."""
    lines: list[str] = []
    if after.phase != before.phase:
        lines.append(PHASES.get(after.phase, after.phase))
    for key, download in after.downloads.items():
        if line := phase_line(before.downloads.get(key), download):
            lines.append(f"  {key[0]}: {line}")
    for name, state in after.models.items():
        if before.models.get(name) != state:
            lines.append(f"  {name}: {state.state}" + (f": {state.message}" if state.message else ""))
    lines += [f"warning: {text}" for text in after.warnings[len(before.warnings) :]]
    return tuple(lines)


def outcome_lines(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one line for each model that failed, then the message of the result."""
    failed = [
        f"{name}: {model.get('message') or 'failed'}"
        for name, model in (result.get("models") or {}).items()
        if not model.get("ok", True)
    ]
    return (*failed, str(result.get("message") or _default_message(result)))


def _default_message(result: Mapping[str, Any]) -> str:
    match result["outcome"]:
        case "applied":
            return f"revision {result.get('generation')} is applied"
        case "partly_applied":
            return f"revision {result.get('generation')} is partly applied"
        case kind:
            return f"not applied ({kind})"

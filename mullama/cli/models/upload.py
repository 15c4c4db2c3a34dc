"""Uploads the files of a model to a remote server, which cannot read the files of this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mullama.cli.api_client.discover import FoundServer, is_remote
from mullama.cli.app.context import CommandContext
from mullama.cli.console.download_progress import DownloadDisplay
from mullama.errors import Invalid, NotFound, Unsupported
from mullama.names import PathRef, parse_source
from mullama.sources.base import DownloadProgress, Phase
from mullama.weights.split import split_name

_CHUNK = 1024 * 1024


def upload_files(
    call: CommandContext, server: FoundServer, tree: Mapping[str, Any], *, quiet: bool = False
) -> dict[str, Any]:
    """Upload the files of a model and return the model with `blob:DIGEST` in place of each path.

    Paths must be absolute. The projector beside weights is uploaded with them. A server on this machine reads the
    files itself; the model is then returned unchanged.
    """
    if not is_remote(call):
        return dict(tree)
    with DownloadDisplay(call.terminal, quiet=quiet) as report:

        def uploaded(source: Any) -> Any:
            return _upload(server, Path(source), report) if _is_path(source) else source

        model = {key: uploaded(value) if key in ("from", "mmproj", "draft") else value for key, value in tree.items()}
        if (beside := _projector_beside(tree)) is not None:
            model["mmproj"] = uploaded(str(beside))
        if isinstance(draft := model.get("draft"), Mapping) and "from" in draft:
            model["draft"] = {**draft, "from": uploaded(draft["from"])}
        if "adapters" in model:
            model["adapters"] = [{**adapter, "from": uploaded(adapter["from"])} for adapter in model["adapters"]]
    return model


def _projector_beside(tree: Mapping[str, Any]) -> Path | None:
    """Return the projector that `mmproj: auto` finds in the folder of weights."""
    if tree.get("mmproj", "auto") != "auto" or not _is_path(tree.get("from")):
        return None
    from mullama.sources.file import projector_file

    return projector_file(Path(tree["from"]))


def _is_path(source: Any) -> bool:
    return isinstance(source, str) and isinstance(parse_source(source), PathRef)


def _upload(server: FoundServer, path: Path, report: DownloadDisplay) -> str:
    if not path.is_file():
        raise NotFound(f"{path} does not exist", name=str(path))
    if _is_part(path):
        hint = "join the parts, or name a source that the server can download"
        raise Unsupported(f"{path.name} is one part of several, and only single files can be uploaded", hint=hint)
    hashed = hashlib.sha256()
    for piece in _pieces(path, "verifying", report):
        hashed.update(piece)
    digest = f"sha256:{hashed.hexdigest()}"
    address = f"/api/models/blobs/{digest}"
    if not server.client.has(address):
        server.client.send(address, _pieces(path, "sending", report), path.stat().st_size)
    return f"blob:{digest}"


def _is_part(path: Path) -> bool:
    try:
        return len(split_name(path.name)) > 1
    except Invalid:
        return True


def _pieces(path: Path, phase: Phase, report: DownloadDisplay) -> Iterator[bytes]:
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            done += len(piece)
            report(DownloadProgress(file=path.name, phase=phase, completed=done, total=total))
            yield piece

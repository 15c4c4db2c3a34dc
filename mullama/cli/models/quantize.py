"""`mullama quantize`: write weights in another quantisation, by llama.cpp in a child process."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.cli.console.download_progress import DownloadDisplay
from mullama.cli.models.pull import located
from mullama.errors import Refused, Unsupported
from mullama.units import size

if TYPE_CHECKING:
    from mullama.reconcile.files import Files
    from mullama.weights.stored import StoredWeights

_CHUNK = 4 * 1024**2
_QUANTISED = ("F32", "F16", "BF16")


def quantize_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="SPEC", help="a path, hf:org/repo:F16, or any other source")
    parser.add_argument("types", metavar="TYPE", help="such as Q4_K_M; several with commas")
    parser.add_argument("-o", "--output", metavar="PATH", help="the file, or for several types the folder")
    parser.add_argument("--requantize", action="store_true", help="allow weights that are quantised already")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def quantize(call: CommandContext) -> int:
    """The file is written beside and renamed when it is whole."""
    options = call.options
    kinds = tuple(kind.strip().upper() for kind in options.types.split(",") if kind.strip())
    if not kinds:
        raise UsageError("quantize needs a type", hint="for example Q4_K_M")
    stored = _stored(call, options.source)
    for kind in kinds:
        target = _target(call, stored, kind, several=len(kinds) > 1)
        if target.exists() and not options.force:
            raise Refused(f"{target} exists already", hint="--force writes over it, -o names another")
        _write(call, stored, target, kind)
        call.terminal.line(f"wrote {target}  {size(stored.size)} -> {size(target.stat().st_size)}")
    return DONE


def _target(call: CommandContext, stored: StoredWeights, kind: str, *, several: bool) -> Path:
    said = call.options.output
    base = (stored.pinned[0].name if stored.pinned else Path(stored.files[0]).name).rsplit("/", 1)[-1]
    usual = f"{base.removesuffix('.gguf')}-{kind}.gguf"
    if said is None:
        return call.folder / usual
    path = call.folder / Path(said).expanduser()
    return path / usual if several or path.is_dir() else path


def _stored(call: CommandContext, source: str, *, quiet: bool = False) -> StoredWeights:
    """The weights of a source, fetched when they are not here; `Unsupported` for a split set."""
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.files import Files

    files: Files = Files.here(call.env)
    library = files.library(Manifest(mullama="v1"))
    with DownloadDisplay(call.terminal, quiet=quiet) as report:
        found = library.locate(located(call, source), None, files.offline(False))
        stored = library.ensure(found, report, lambda: False)
    if len(stored.files) > 1:
        raise Unsupported(f"{source} is split in {len(stored.files)} files", hint="join them first")
    return stored


def _write(call: CommandContext, stored: StoredWeights, target: Path, kind: str) -> None:
    """Quantise into a private file in the target's folder, then rename."""
    from mullama.engines.llamacpp.quantize import quantize as run

    again = bool(getattr(call.options, "requantize", False))
    if stored.facts.quantization not in _QUANTISED and not again:
        raise Refused(
            f"{stored.source} is quantised already ({stored.facts.quantization}): quality is lost twice",
            hint="--requantize does it all the same; F16 or BF16 weights are better",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, private = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(descriptor)
    try:
        threads = int(getattr(call.options, "threads", 0) or 0)
        run(stored.files[0], private, kind, again=again, threads=threads, env=call.env)
        os.chmod(private, 0o644)
        os.replace(private, target)
    finally:
        Path(private).unlink(missing_ok=True)


def into_store(call: CommandContext, source: str, kind: str, *, quiet: bool) -> str:
    """The path in the store of `source` in another quantisation."""
    from mullama.reconcile.files import Files

    stored = _stored(call, source, quiet=quiet)
    with tempfile.TemporaryDirectory(prefix="mullama-quantize-", dir=_room(call)) as folder:
        made = Path(folder) / "model.gguf"
        _write(call, stored, made, kind.upper())
        return keep(Files.here(call.env), made)


def _room(call: CommandContext) -> str:
    """The store's own disk: a file may not fit anywhere else."""
    from mullama.folders import data_root

    root = data_root(call.env)
    root.mkdir(parents=True, exist_ok=True)
    return str(root)


def keep(files: Files, path: Path) -> str:
    """Copy a file into the store, hashed while it is written; its path there."""
    blobs = files.index.blobs
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if not blobs.has(digest):
            file.seek(0)
            with blobs.receive(digest) as partial:
                partial.restart()
                while piece := file.read(_CHUNK):
                    partial.write(piece)
                partial.promote()
    return blobs.path(digest)

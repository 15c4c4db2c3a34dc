"""`mullama quantize`: quantise weights with llama.cpp in a child process."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.cli.console.download_progress import DownloadDisplay
from mullama.cli.models.model_card import QuantizedFile, write_card
from mullama.cli.models.pull import absolute_source
from mullama.errors import EngineFailed, Invalid, NotFound, Refused, Unsupported, masked
from mullama.names import suggest
from mullama.units import size

if TYPE_CHECKING:
    from mullama.reconcile.files import Files
    from mullama.weights.stored import StoredWeights

_CHUNK = 4 * 1024**2
_FULL = 1024**2  # bytes: llama.cpp fails with another error than ENOSPC, with less free than a tensor needs
_UNQUANTISED = ("F32", "F16", "BF16")
# The usual type of a number of bits, for short names such as q4.
_BY_BITS = {"2": "Q2_K", "3": "Q3_K_M", "4": "Q4_K_M", "5": "Q5_K_M", "6": "Q6_K", "8": "Q8_0"}


def quantize_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="SPEC", help="a path, hf:org/repo:F16, or any other source")
    parser.add_argument(
        "types", nargs="+", metavar="TYPE", help="for example Q4_K_M, or q4 for short; several may be given"
    )
    parser.add_argument("-o", "--output", metavar="PATH", help="output file; for several types, the folder")
    parser.add_argument(
        "--imatrix", metavar="FILE", help="importance matrix of the model, as llama-imatrix writes it (GGUF or .dat)"
    )
    parser.add_argument(
        "--no-card", "--no-readme", dest="card", action="store_false",
        help="write no model card (README.md) beside the file",
    )  # fmt: skip
    parser.add_argument("--requantize", action="store_true", help="allow weights that are already quantized")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def quantize(call: CommandContext) -> int:
    """Write one file for each type."""
    options = call.options
    words = [word for text in options.types for word in text.replace(",", " ").split()]
    kinds = tuple(dict.fromkeys(type_named(word) for word in words))
    if not kinds:
        raise UsageError("quantize needs a type", hint="for example Q4_K_M")
    stored = _stored(call, options.source)
    imatrix = _imatrix(call, stored)
    written: dict[Path, list[QuantizedFile]] = {}
    for kind in kinds:
        target = _target(call, stored, kind, several=len(kinds) > 1)
        if target.exists() and not options.force:
            raise Refused(f"{target} already exists", hint="overwrite it with --force, or name another with -o")
        _write(call, stored, target, kind, imatrix)
        length = target.stat().st_size
        call.terminal.line(f"wrote {target}  {size(stored.size)} -> {size(length)}")
        made = QuantizedFile(name=target.name, kind=kind, bytes=length, imatrix=imatrix.name if imatrix else "")
        written.setdefault(target.parent, []).append(made)
    if options.card:
        from mullama.sources.local_files import look_into

        metadata = look_into(stored.files).metadata
        for folder, files in written.items():
            card = write_card(folder, masked(stored.source), stored.digest, metadata, files)
            call.terminal.line(f"wrote {card}")
    return DONE


def _imatrix(call: CommandContext, stored: StoredWeights) -> Path | None:
    """Return the path of the importance matrix, once it is known to fit the model."""
    if call.options.imatrix is None:
        return None
    from mullama.sources.local_files import look_into, read_importance
    from mullama.weights.imatrix import check_imatrix

    path = call.folder / Path(call.options.imatrix).expanduser()
    if not path.exists():
        raise NotFound(f"{path} does not exist", name=str(path))
    check_imatrix(read_importance(str(path)), look_into(stored.files).tensors, masked(stored.source))
    return path


def type_named(word: str) -> str:
    """Return the quantisation of a name such as Q4_K_M, q4_k, q4k, q4 or 4. Raises `Invalid` with the closest names."""
    from mullama.weights.tensors import FILE_TYPES

    bare = _bare(word)
    known = {_bare(name): name for name in FILE_TYPES.values()}
    name = known.get(bare) or known.get(bare + "M") or _BY_BITS.get(bare.removeprefix("Q"))
    if name is None:
        near = suggest(word.upper(), known.values())
        hint = f"did you mean {' or '.join(near)}?" if near else "for example Q4_K_M, Q5_K_M, Q6_K or Q8_0"
        raise Invalid(f"{word[:40]!r} is not a quantization", hint=hint)
    return name


def _bare(name: str) -> str:
    return "".join(char for char in name.upper() if char.isalnum())


def _target(call: CommandContext, stored: StoredWeights, kind: str, *, several: bool) -> Path:
    output = call.options.output
    base = (stored.pinned[0].name if stored.pinned else Path(stored.files[0]).name).rsplit("/", 1)[-1]
    name = f"{base.removesuffix('.gguf')}-{kind}.gguf"
    if output is None:
        return call.folder / name
    path = call.folder / Path(output).expanduser()
    return path / name if several or path.is_dir() else path


def _stored(call: CommandContext, source: str, *, quiet: bool = False) -> StoredWeights:
    """Return the weights of a source, downloading them if needed; raise `Unsupported` for a split set."""
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.files import Files

    files: Files = Files.here(call.env)
    library = files.library(Manifest(mullama="v1"))
    with DownloadDisplay(call.terminal, quiet=quiet) as report:
        found = library.locate(absolute_source(call, source), None, files.offline(False))
        stored = library.ensure(found, report, lambda: False)
    if len(stored.files) > 1:
        raise Unsupported(f"{source} is split into {len(stored.files)} files", hint="join them first")
    return stored


def _write(call: CommandContext, stored: StoredWeights, target: Path, kind: str, imatrix: Path | None = None) -> None:
    """Quantise into a temporary file in the target's folder and rename it when it is complete."""
    from mullama.engines.llamacpp.quantize import quantize as run

    again = bool(getattr(call.options, "requantize", False))
    if stored.facts.quantization not in _UNQUANTISED and not again:
        raise Refused(
            f"{stored.source} is already quantized ({stored.facts.quantization}): doing it again loses quality",
            hint="use F16 or BF16 weights, or --requantize",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    except OSError as error:  # which names the temporary file
        raise OSError(error.errno, error.strerror, str(target)) from error
    os.close(descriptor)
    try:
        threads = int(getattr(call.options, "threads", 0) or 0)
        matrix = str(imatrix) if imatrix else None
        run(stored.files[0], temporary, kind, again=again, threads=threads, imatrix=matrix, env=call.env)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except EngineFailed as error:
        if shutil.disk_usage(target.parent).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise
    finally:
        Path(temporary).unlink(missing_ok=True)


def into_store(call: CommandContext, source: str, kind: str, *, quiet: bool) -> str:
    """Quantise a source into the store and return the path of the file."""
    from mullama.reconcile.files import Files

    stored = _stored(call, source, quiet=quiet)
    with tempfile.TemporaryDirectory(prefix="mullama-quantize-", dir=_store_folder(call)) as folder:
        path = Path(folder) / "model.gguf"
        _write(call, stored, path, type_named(kind))
        return _copy_into_store(Files.here(call.env), path)


def _store_folder(call: CommandContext) -> str:
    """Return the folder of the store, created if needed: the temporary folder may be too small for a model."""
    from mullama.folders import data_root

    root = data_root(call.env)
    root.mkdir(parents=True, exist_ok=True)
    return str(root)


def _copy_into_store(files: Files, path: Path) -> str:
    """Copy a file into the store and return its path there."""
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

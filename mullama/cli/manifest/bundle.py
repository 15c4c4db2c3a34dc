"""`mullama bundle`: packs manifest, lock file and weights in one archive for a machine without a network."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mullama.cli.api_client.discover import load_manifest
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options
from mullama.cli.app.exit_codes import DONE
from mullama.cli.app.text_files import read_text, write_text
from mullama.errors import Invalid, NotFound, Refused, TransferFailed, Unsupported
from mullama.names import LOCK_NAME, Digest
from mullama.reconcile.files import Files
from mullama.reconcile.lock import lockable, require_locked
from mullama.reconcile.pins import read_lock, read_locked_tools
from mullama.units import counted, size

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.manifest.spec import Manifest
    from mullama.weights.stored import LockEntry, PinnedFile

FORMAT = "mullama.bundle/1"
_HEAD = "mullama.bundle.json"
_CHUNK = 4 * 1024**2
_MAX_TEXT = 16 * 1024**2


def bundle_options(parser: Parser) -> None:
    parser.add_argument("action", choices=("export", "import"), help="write an archive, or unpack one")
    parser.add_argument("archive", metavar="ARCHIVE", help="path of the archive")
    parser.add_argument(
        "--into", default=".", metavar="FOLDER", help="import: folder of the manifest (default: this folder)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    manifest_options(parser)


def bundle(call: CommandContext) -> int:
    return _export(call) if call.options.action == "export" else _import(call)


def _export(call: CommandContext) -> int:
    """Write the files that the lock file pins. All of them must be locked and stored."""
    from mullama.store import lockfile

    loaded = load_manifest(call)
    if loaded.path is None:
        raise UsageError("a bundle needs a manifest file", hint="-f FILE names it")
    target = call.folder / Path(call.options.archive).expanduser()
    if target.exists() and not call.options.force:
        raise Refused(f"{target} already exists", hint="--force overwrites it")
    lock = read_lock(loaded.path)
    require_locked(loaded.manifest, lock)
    if not Path(loaded.path).with_name(LOCK_NAME).exists():
        raise NotFound(f"there is no {LOCK_NAME} next to the manifest", hint="mullama lock writes it")
    wanted = {source: lock[source] for source in lockable(loaded.manifest)}
    for name, model in loaded.manifest.models.items():
        for source in model.all_sources:
            if source not in wanted and not source.startswith("builtin:"):
                raise Unsupported(f"{name}: {source} is a local file, and a bundle holds downloaded files only")
    paths = _paths(call, loaded.manifest, wanted)
    descriptor, private = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            _add_text(tar, _HEAD, json.dumps({"format": FORMAT, "files": sorted(paths)}))
            _add_text(tar, "mullama.yaml", _manifest_text(call, loaded))
            # Without the pins of `include`: the manifest of the bundle has its content.
            _add_text(tar, LOCK_NAME, lockfile.render(lock, None, read_locked_tools(loaded.path)))
            for digest, path in sorted(paths.items()):
                _add_file(tar, f"blobs/{digest.replace(':', '-')}", path)
        os.replace(private, target)
    finally:
        Path(private).unlink(missing_ok=True)
    call.terminal.line(f"wrote {target}: {counted(len(paths), 'file')}, {size(target.stat().st_size)}")
    return DONE


def _manifest_text(call: CommandContext, loaded: LoadedManifest) -> str:
    """Return the text of the manifest; with includes or profiles, the resolved text of `mullama config`."""
    if loaded.path is not None and not loaded.profiles and {file.path for file in loaded.files} == {loaded.path}:
        return read_text(Path(loaded.path))
    from mullama.manifest.dump import manifest_text

    call.terminal.note("the manifest and its includes are merged into one file")
    return manifest_text(loaded.manifest)


def _paths(call: CommandContext, manifest: Manifest, wanted: dict[str, LockEntry]) -> dict[str, str]:
    """Return the path of each locked file by digest; raise `NotFound` for a file that is not stored."""
    library = Files.here(call.env).library(manifest)
    found: dict[str, str] = {}
    for source, entry in wanted.items():
        here = library.here(source, entry)
        if here is None:
            raise NotFound(f"the locked files of {source} are not stored", name=source, hint="mullama apply fetches it")
        found |= {pin.digest: file.path for pin, file in zip(entry.files, here.files, strict=True) if file.path}
    return found


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, path: str) -> None:
    with open(path, "rb") as file:
        member = tarfile.TarInfo(name)
        member.size, member.mode = os.fstat(file.fileno()).st_size, 0o644
        tar.addfile(member, file)


def _import(call: CommandContext) -> int:
    """Store the files of an archive. Members with other names are skipped; every digest is checked."""
    files = Files.here(call.env)
    folder = call.folder / Path(call.options.into).expanduser()
    texts: dict[str, str] = {}
    stored: set[str] = set()
    path = call.folder / Path(call.options.archive).expanduser()
    with path.open("rb") as archive, _reading(path, "its first header") as place:
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            for member, stream in _members(tar, place):
                if member.name in (_HEAD, "mullama.yaml", LOCK_NAME):
                    texts[member.name] = _text(member, stream)
                elif digest := blob_digest(member.name):
                    _store(files, digest, member.name, stream)
                    stored.add(digest)
                else:
                    call.terminal.note(f"warning: {member.name[:120]!r} is not part of a bundle and is skipped")
        lock = _checked(texts, stored, place)
    _write_texts(call, folder, texts)
    _index(files, lock)
    call.terminal.line(f"stored {counted(len(stored), 'file')}; mullama.yaml and {LOCK_NAME} are in {folder}")
    call.terminal.line("mullama apply --offline --locked serves them")
    return DONE


@contextmanager
def _reading(path: Path, first: str) -> Iterator[list[str]]:
    """Raise what a damaged archive causes as `Invalid` with the place. Yields a list whose last entry is the place."""
    place = [first]
    try:
        yield place
    except (
        tarfile.TarError, EOFError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError,
    ) as error:  # fmt: skip
        raise Invalid(
            f"{path} is damaged or is not a bundle, at {place[-1]}: {str(error)[:200] or type(error).__name__}",
            hint="mullama bundle export writes it again",
        ) from error


def _members(tar: tarfile.TarFile, place: list[str]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the regular members in order. Links and devices are skipped, so no path outside is written.

    place: receives the name of each member, and what follows it.
    """
    for member in tar:
        place.append(repr(member.name[:120]))
        stream = tar.extractfile(member) if member.isreg() else None
        if stream is not None:
            yield member, stream
        place.append(f"the header after {member.name[:120]!r}")


def blob_digest(name: str) -> str | None:
    """Return the digest in the name of a member; None for a name that an export does not write."""
    folder, _, rest = name.partition("/")
    kind, _, hex_ = rest.partition("-")
    if folder != "blobs" or kind != "sha256":
        return None
    try:
        return Digest.parse(f"sha256:{hex_}").text
    except Invalid:
        return None


def _text(member: tarfile.TarInfo, stream: IO[bytes]) -> str:
    if member.size > _MAX_TEXT:
        raise Invalid(f"{member.name} of the bundle is larger than {size(_MAX_TEXT)}")
    return stream.read().decode("utf-8")


def _store(files: Files, digest: str, name: str, stream: IO[bytes]) -> None:
    """Store one file; raise `TransferFailed` if its bytes have another digest."""
    blobs = files.index.blobs
    if blobs.has(digest):
        return
    with blobs.receive(digest) as partial:
        partial.restart()
        while piece := stream.read(_CHUNK):
            partial.write(piece)
        if partial.digest() != digest:
            actual = partial.digest()
            partial.discard()
            raise TransferFailed(f"{name} of the bundle has the digest {actual}, which its name does not have")
        partial.promote()


def _checked(texts: dict[str, str], stored: set[str], place: list[str]) -> dict[str, LockEntry]:
    """Return the lock file of a complete bundle; raise `Invalid` for another archive."""
    from mullama.store import lockfile

    absent = [name for name in (_HEAD, "mullama.yaml", LOCK_NAME) if name not in texts]
    if absent:
        raise Invalid(f"the archive lacks {absent[0]}", hint="mullama bundle export writes a complete one")
    place.append(_HEAD)
    head = json.loads(texts[_HEAD])
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise Invalid("the bundle has an unknown format", hint=f"this version reads {FORMAT}")
    listed = head.get("files")
    if not isinstance(listed, list) or not all(isinstance(digest, str) for digest in listed):
        raise Invalid(f"{_HEAD} of the bundle has no list of files")
    missing = [digest for digest in listed if digest not in stored]
    if missing:
        raise Invalid(f"the archive lacks {missing[0]}", hint="the archive may be truncated")
    place.append(LOCK_NAME)
    return lockfile.parse(texts[LOCK_NAME])


def _write_texts(call: CommandContext, folder: Path, texts: dict[str, str]) -> None:
    for name in ("mullama.yaml", LOCK_NAME):
        path = folder / name
        if path.exists() and not call.options.force and read_text(path) != texts[name]:
            raise Refused(f"{path} already exists", hint="--force overwrites it, --into FOLDER writes elsewhere")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("mullama.yaml", LOCK_NAME):
        write_text(folder / name, texts[name])


def _index(files: Files, lock: dict[str, LockEntry]) -> None:
    """Record the files of each source in the index, as after a download."""
    import time

    from mullama.store.index import Fetched

    for source, entry in lock.items():
        if all(_is_stored(files, file) for file in entry.files):
            files.index.remember_fetched(
                Fetched(
                    source=source, resolved=entry.resolved, revision=entry.revision, files=entry.files,
                    license=entry.license, fetched=time.time(),
                )
            )  # fmt: skip


def _is_stored(files: Files, file: PinnedFile) -> bool:
    return files.index.blobs.has(file.digest)

"""`mullama export`: writes the manifest for another tool, such as a compose file or objects for Kubernetes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import load_manifest
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options
from mullama.cli.app.exit_codes import DIFFERS, DONE
from mullama.cli.app.text_files import read_text, write_text
from mullama.errors import Refused
from mullama.export import MARK, TARGETS, ExportInput, ExportOptions
from mullama.names import LOCK_NAME
from mullama.units import counted

if TYPE_CHECKING:
    from mullama.export import Exported, ExportedFile, MemoryUse
    from mullama.manifest.load import LoadedManifest
    from mullama.plan.observed import KnownFiles

_QUANTITY = re.compile(r"[1-9][0-9]*(?:Ki|Mi|Gi|Ti|k|M|G|T)?")


def export_options(parser: Parser) -> None:
    parser.add_argument(
        "target", choices=TARGETS, metavar="TARGET", help="; ".join(f"{k}: {t.summary}" for k, t in TARGETS.items())
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="llama-swap, modelfile: only these models")
    manifest_options(parser)
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder to write to (default: print the file)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 2 if files of --output differ")
    parser.add_argument("--force", action="store_true", help="overwrite files that an export did not write")
    parser.add_argument("--name", metavar="NAME", help="name of the service or of the objects (default: mullama)")
    parser.add_argument("--image", metavar="IMAGE", help="container image (default: mullama with this version)")
    parser.add_argument("--namespace", metavar="NAME", help="namespace of the objects")
    parser.add_argument("--replicas", type=int, metavar="N", help="number of servers (default: 1)")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs of one server (default: those of the device maps)")
    parser.add_argument("--storage", metavar="SIZE", help="size of the volume for weights (default: 50Gi)")
    parser.add_argument("--storage-class", metavar="NAME", help="storage class of the volume")
    parser.add_argument("--weights-image", metavar="IMAGE", help="image with weights, mounted as a volume")
    parser.add_argument("--endpoint-picker", metavar="NAME", help="kube: add an InferencePool with this picker")
    parser.add_argument("--program", metavar="PATH", help="systemd: path of mullama (default: this program)")


def export(call: CommandContext) -> int:
    """Print or write the export; what the target cannot have is listed on standard error."""
    options, target = call.options, TARGETS[call.options.target]
    chosen = _export_options(call, target.options)
    if (options.check or options.force) and options.output is None:
        raise UsageError("--check and --force need --output FOLDER")
    loaded = load_manifest(call)
    made = target.export(_export_input(call, loaded, chosen))
    for note in made.notes:
        call.terminal.note(f"note: {note}")
    if options.output is None:
        return _print(call, made)
    folder = call.folder / Path(options.output).expanduser()
    changed = [file for file in made.files if _current(folder / file.path) != file.text]
    if options.check:
        for file in changed:
            call.terminal.line(f"{folder / file.path} differs from the manifest")
        return DIFFERS if changed else DONE
    _require_own(folder, changed, force=options.force)
    for file in changed:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, file.text)
        call.terminal.line(f"wrote {path}")
    if not changed:
        call.terminal.line(f"{counted(len(made.files), 'file')} in {folder}: nothing to change")
    return DONE


def _export_options(call: CommandContext, known: tuple[str, ...]) -> ExportOptions:
    """Return the options; raise `UsageError` for one that the target does not have, or with a wrong value."""
    given = {name: getattr(call.options, name) for name in ExportOptions.__struct_fields__}
    given = {name: value for name, value in given.items() if value not in (None, [])}
    for name in given:
        if name not in known:
            shown = "MODEL" if name == "models" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{call.options.target} has no {shown}")
    for name in ("replicas", "gpus"):
        if name in given and given[name] < (1 if name == "replicas" else 0):
            raise UsageError(f"--{name} {given[name]} is too small")
    if "storage" in given and not _QUANTITY.fullmatch(given["storage"]):
        raise UsageError(f"{given['storage']!r} is no size of Kubernetes", hint="such as 50Gi")
    if "name" in given and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", given["name"]):
        raise UsageError(f"{given['name']!r} is no name", hint="letters, digits, - and _, at most 63")
    if "program" in known:
        given["program"] = str((call.folder / Path(given.get("program") or _program())).absolute())
    return ExportOptions(**{**given, "models": tuple(given.get("models", ()))})


def _program() -> str:
    """Return the path of the command `mullama` of this installation."""
    return str(Path(sys.executable).with_name("mullama"))


def _export_input(call: CommandContext, loaded: LoadedManifest, options: ExportOptions) -> ExportInput:
    from mullama import __version__
    from mullama.reconcile.files import Files
    from mullama.reconcile.pins import read_lock

    files = Files.here(call.env).known([loaded.manifest], read_lock(loaded.path))
    lock = Path(loaded.path).with_name(LOCK_NAME) if loaded.path else None
    return ExportInput(
        manifest=loaded.manifest, version=__version__, path=loaded.path,
        lock=read_text(lock) if lock is not None and lock.is_file() else None,
        memory=_memory(loaded, files), known=files,
        weights={source: known.paths[0] for source, known in files.items() if known.stored and known.paths},
        options=options,
    )  # fmt: skip


def _memory(loaded: LoadedManifest, files: dict[str, KnownFiles]) -> MemoryUse | None:
    """Return the memory of the models; None if the header of one is not known."""
    from mullama.export import MemoryUse
    from mullama.plan.fit import MemoryLedger

    models = loaded.manifest.models.values()
    known = all(source in files and files[source].size is not None for m in models for source in m.all_sources)
    if not known or any(files[model.from_].facts is None for model in models):
        return None
    start = [model for model in models if model.residency.load == "at_start"]
    sums = []
    for chosen in (start, list(models)):
        ledger = MemoryLedger((), chosen, files, None)
        sums.append(sum(ledger.added(model) for model in chosen))
    return MemoryUse(start=sums[0], all=sums[1])


def _print(call: CommandContext, made: Exported) -> int:
    if len(made.files) > 1:
        names = ", ".join(file.path for file in made.files[:4])
        raise UsageError(f"this export has {len(made.files)} files: {names}", hint="-o FOLDER writes them")
    call.terminal.raw(made.files[0].text)
    return DONE


def _current(path: Path) -> str | None:
    """Return the text of a file; None for a missing one."""
    return read_text(path) if path.is_file() else None


def _require_own(folder: Path, changed: list[ExportedFile], *, force: bool) -> None:
    """Raise `Refused` for a file that an export did not write. A lock file has no comment, and is a part of any."""
    for file in changed:
        before = None if force or file.path.endswith(LOCK_NAME) else _current(folder / file.path)
        if before is not None and MARK not in before.split("\n", 1)[0]:
            raise Refused(f"{folder / file.path} was not written by an export", hint="--force overwrites it")

"""`mullama doctor`: whether this machine can serve, looked at piece by piece; changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import mullama
from mullama.cli.api_client.discover import has_manifest, load_manifest
from mullama.cli.app.context import CommandContext, Parser, json_option, manifest_options
from mullama.cli.app.environment import OLLAMA, UNREAD
from mullama.cli.app.exit_codes import DONE, ERROR
from mullama.errors import MullamaError
from mullama.folders import data_root, state_root
from mullama.machine import usable_cores
from mullama.plan.report import Line, Tone
from mullama.reconcile.files import Files
from mullama.store.records import instances
from mullama.units import counted, size

if TYPE_CHECKING:
    from mullama.manifest.spec import Manifest

State = Literal["ok", "note", "warning", "failure"]
_LOW_DISK = 5 * 1024**3
_DEFAULT_LISTEN = ("127.0.0.1:11434",)

_HUB = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
_MASKS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: its name, how it is, what was seen, and what to do."""

    name: str
    state: State
    message: str
    hint: str = ""


def doctor_options(parser: Parser) -> None:
    manifest_options(parser)
    json_option(parser)
    parser.add_argument("--offline", action="store_true", help="do not ask the hub")


def doctor(call: CommandContext) -> int:
    """Exit 0 when nothing failed; warnings are no failure."""
    found: list[Finding] = []
    for check in CHECKS:
        found += _looked(check, call)
    failed = any(item.state == "failure" for item in found)
    if call.options.json:
        call.terminal.json({"healthy": not failed, "findings": [asdict(item) for item in found]})
    else:
        call.terminal.toned(line for item in found for line in _lines(item))
    return ERROR if failed else DONE


def _looked(check: Callable[[CommandContext], Iterator[Finding]], call: CommandContext) -> list[Finding]:
    """What a check found; one that cannot be made says why."""
    try:
        return list(check(call))
    except (MullamaError, OSError) as error:
        hint = error.hint if isinstance(error, MullamaError) else ""
        return [Finding(name=check.__name__.strip("_"), state="failure", message=str(error), hint=hint)]


_SIGNS: dict[State, tuple[str, Tone]] = {
    "ok": ("+", "add"), "note": (" ", "plain"), "warning": ("!", "update"), "failure": ("x", "remove"),
}  # fmt: skip


def _lines(item: Finding) -> Iterator[Line]:
    sign, tone = _SIGNS[item.state]
    yield Line(f"{sign} {item.name:<12} {item.message}", tone)
    if item.hint:
        yield Line(f"  {'':<12} {item.hint}", "plain")


def _version(call: CommandContext) -> Iterator[Finding]:
    text = f"mullama {mullama.__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Finding(name="version", state="ok", message=text)


def _cpu(call: CommandContext) -> Iterator[Finding]:
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    except OSError:
        flags = set()
    wanted = ("avx", "avx2", "avx512f", "f16c", "fma", "amx_tile", "neon", "asimd", "sve")
    seen = [flag for flag in wanted if flag in flags]
    yield Finding(
        name="cpu", state="ok", message=f"{usable_cores()} cores, {platform.machine()} {' '.join(seen)}".rstrip()
    )


def _engine(call: CommandContext) -> Iterator[Finding]:
    """A decode in a child process, because a library that does not suit the CPU ends the process it runs in."""
    from mullama.engines.selftest import selftest
    from mullama.manifest.spec import Manifest

    library = Files.here(call.env).library(Manifest(mullama="v1"))
    tiny = next(file.path for file in library.locate("builtin:tiny").files if file.path)
    result = selftest(tiny, state_root(call.env) / "selftest", call.env)
    if not result.works:
        yield Finding(
            name="engine", state="failure", message=f"llama.cpp cannot compute here: {result.report}",
            hint="install a build for this CPU, such as one without native instructions",
        )  # fmt: skip
    elif not result.extra_buffers:
        yield Finding(
            name="engine", state="warning", message=f"llama.cpp computes, but {result.report}",
            hint="memory.extra_buffers: false keeps them off",
        )  # fmt: skip
    else:
        yield Finding(name="engine", state="ok", message="llama.cpp loads the built-in model and computes")


def _memory(call: CommandContext) -> Iterator[Finding]:
    from mullama.reconcile.machine import observe_machine

    machine = observe_machine()
    text = f"{size(machine.ram_available)} of {size(machine.ram_total)} are available"
    low = machine.ram_total and machine.ram_available < machine.ram_total // 20
    yield Finding(name="memory", state="warning" if low else "ok", message=text)


def _gpus(call: CommandContext) -> Iterator[Finding]:
    from mullama.reconcile.machine import observe_machine

    gpus = observe_machine().gpus
    for name, total, free in gpus:
        yield Finding(name="gpu", state="ok", message=f"{name}: {size(free)} of {size(total)} are free")
    if not gpus:
        yield Finding(name="gpu", state="note", message="none is seen: models run on the CPU")
    for mask in _MASKS:
        if mask in call.env:
            yield Finding(name="gpu", state="note", message=f"{mask}={call.env[mask]} limits which are seen")


def _disk(call: CommandContext) -> Iterator[Finding]:
    root = data_root(call.env)
    there = root
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        yield Finding(
            name="store", state="failure", message=f"{there} cannot be written", hint="MULLAMA_CACHE_DIR names another"
        )
    low = free < _LOW_DISK
    hint = "MULLAMA_CACHE_DIR moves the store to a larger disk" if low else ""
    yield Finding(name="store", state="warning" if low else "ok", message=f"{root}: {size(free)} free", hint=hint)


def _state(call: CommandContext) -> Iterator[Finding]:
    root = state_root(call.env)
    running = [records for records in instances(root) if records.server()]
    for records in running:
        record = records.server()
        if record:
            text = f"pid {record.pid} serves {record.manifest or 'no manifest'} on {', '.join(record.listen)}"
            old = record.version != mullama.__version__
            hint = f"it is version {record.version}: mullama down, then apply" if old else ""
            yield Finding(name="server", state="warning" if old else "ok", message=text, hint=hint)
    if not running:
        yield Finding(name="server", state="note", message="none runs")


def _manifest(call: CommandContext) -> Iterator[Finding]:
    if not has_manifest(call):
        yield Finding(name="manifest", state="note", message="none here", hint="mullama init writes one")
        return
    manifest = load_manifest(call).manifest
    yield Finding(name="manifest", state="ok", message=f"valid, {counted(len(manifest.models), 'model')}")


def _ports(call: CommandContext) -> Iterator[Finding]:
    """Whether the addresses of the manifest are free, or are ours already."""
    listen = load_manifest(call).manifest.server.listen if has_manifest(call) else _DEFAULT_LISTEN
    ours = {address for records in instances(state_root(call.env)) if (r := records.server()) for address in r.listen}
    for address in listen:
        host, _, port = address.rpartition(":")
        if address.startswith("unix:") or not port.isdigit() or port == "0":
            continue
        if address in ours:
            yield Finding(name="port", state="ok", message=f"{address} is ours")
        elif why := _taken(host.strip("[]"), int(port)):
            yield Finding(
                name="port",
                state="failure",
                message=f"{address}: {why}",
                hint="is it Ollama? server.listen names another",
            )
        else:
            yield Finding(name="port", state="ok", message=f"{address} is free")


def _taken(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _stores(call: CommandContext) -> Iterator[Finding]:
    from mullama.store.foreign import Foreign, usual_roots

    roots = usual_roots(call.env)
    for kind, folders in (("Hugging Face", roots.huggingface), ("Ollama", roots.ollama)):
        for folder in folders:
            if Path(folder).is_dir():
                readable = os.access(folder, os.R_OK | os.X_OK)
                text = f"{kind}: {folder}" + ("" if readable else " cannot be read")
                yield Finding(name="reuse", state="ok" if readable else "warning", message=text)
    models = Foreign(roots).registry_models()
    if models:
        yield Finding(
            name="reuse", state="note", message=f"{counted(len(models), 'model')} of Ollama can be used in place"
        )


def _hub(call: CommandContext) -> Iterator[Finding]:
    for name in _HUB:
        if name in call.env:
            yield Finding(name="hub", state="note", message=f"{name}={call.env[name]}")
    files = Files.here(call.env)
    if files.offline(call.options.offline):
        yield Finding(name="hub", state="note", message="not asked: offline")
        return
    from mullama.sources.hubquery import user
    from mullama.sources.huggingface import hub_credential

    manifest: Manifest | None = load_manifest(call).manifest if has_manifest(call) else None
    from mullama.manifest.spec import Manifest as Block

    settings = files.settings(manifest or Block(mullama="v1"))
    credential = hub_credential(settings.hub)
    if not credential.headers:
        yield Finding(
            name="hub", state="note", message="no token: gated models cannot be fetched", hint="mullama login"
        )
        return
    try:
        yield Finding(name="hub", state="ok", message=f"the token is {user(settings.hub)}'s")
    except MullamaError as error:
        yield Finding(name="hub", state="warning", message=error.message, hint=error.hint)


def _environment(call: CommandContext) -> Iterator[Finding]:
    yield from unread_findings(call.env)


def unread_findings(env: Mapping[str, str]) -> Iterator[Finding]:
    """Variables of Ollama and of other releases that are set: what says the same here."""
    instead = {**OLLAMA, **UNREAD}
    for name in sorted(name for name in env if name.startswith("OLLAMA_") or name in UNREAD):
        if name == "OLLAMA_MODELS":
            yield Finding(name="environment", state="note", message=f"{name} is set", hint=f"here: {instead[name]}")
        elif name in instead:
            text = f"{name} is set and not read"
            yield Finding(name="environment", state="warning", message=text, hint=f"here: {instead[name]}")
        else:
            yield Finding(name="environment", state="note", message=f"{name} is set and not read")


CHECKS = (_version, _cpu, _engine, _memory, _gpus, _disk, _state, _manifest, _ports, _stores, _hub, _environment)

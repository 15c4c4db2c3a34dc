"""`mullama doctor`: check that this machine can serve models. It changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import mullama
from mullama.cli.api_client import discover
from mullama.cli.api_client.discover import client_address, has_manifest, load_manifest
from mullama.cli.app.context import CommandContext, Parser, json_option, manifest_options
from mullama.cli.app.environment import OLLAMA, UNREAD
from mullama.cli.app.exit_codes import DONE, ERROR
from mullama.errors import MullamaError, masked
from mullama.folders import data_root, state_root
from mullama.machine import GPU_MASKS, usable_cores
from mullama.plan.observed import Device
from mullama.plan.report import Line, Tone
from mullama.reconcile.files import Files
from mullama.store.records import instances
from mullama.struct import Struct, asdict
from mullama.units import counted, size

State = Literal["ok", "note", "warning", "failure"]
_LOW_DISK = 5 * 1024**3
_DEFAULT_LISTEN = ("127.0.0.1:11434",)

_HUB = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN")


class Diagnosis(Struct, frozen=True):
    """The result of one check."""

    name: str
    state: State
    message: str
    hint: str = ""


def doctor_options(parser: Parser) -> None:
    manifest_options(parser)
    json_option(parser)
    parser.add_argument("--offline", action="store_true", help="do not connect to the hub")


def doctor(call: CommandContext) -> int:
    """Print all findings; exit with 0 when no check failed. Warnings are not failures."""
    found: list[Diagnosis] = []
    for check in CHECKS:
        found += _run(check, call)
    failed = any(item.state == "failure" for item in found)
    if call.options.json:
        call.terminal.json({"healthy": not failed, "findings": [asdict(item) for item in found]})
    else:
        call.terminal.toned(line for item in found for line in _lines(item))
    return ERROR if failed else DONE


def _run(check: Callable[[CommandContext], Iterator[Diagnosis]], call: CommandContext) -> list[Diagnosis]:
    """Return the findings of a check; an error of the check is a finding too."""
    try:
        return list(check(call))
    except (MullamaError, OSError) as error:
        hint = error.hint if isinstance(error, MullamaError) else ""
        return [Diagnosis(check.__name__.strip("_"), "failure", str(error), hint)]


_SIGNS: dict[State, tuple[str, Tone]] = {
    "ok": ("+", "add"), "note": (" ", "plain"), "warning": ("!", "update"), "failure": ("x", "remove"),
}  # fmt: skip


def _lines(item: Diagnosis) -> Iterator[Line]:
    sign, tone = _SIGNS[item.state]
    yield Line(f"{sign} {item.name:<12} {item.message}", tone)
    if item.hint:
        yield Line(f"  {'':<12} {item.hint}", "plain")


def _version(call: CommandContext) -> Iterator[Diagnosis]:
    text = f"mullama {mullama.__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Diagnosis("version", "ok", text)


def _cpu(call: CommandContext) -> Iterator[Diagnosis]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    known = ("avx", "avx2", "avx512f", "f16c", "fma", "amx_tile", "neon", "asimd", "sve")
    cores = usable_cores()
    text = f"{counted(cores, 'core')}, {platform.machine()} {' '.join(flag for flag in known if flag in flags)}"
    yield Diagnosis("cpu", "ok", text.rstrip())
    yield from load_finding(os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, cores)


def load_finding(load: float, cores: int) -> Iterator[Diagnosis]:
    """Yield a warning about a machine whose processor others use, too. load: runnable threads on average."""
    if load >= 2 * cores + 1:
        hint = "context.threads: 1 helps; without the field, threads are reduced while others need the cores"
        yield Diagnosis("load", "warning", f"load {load:.0f} on {counted(cores, 'core')}: answers are slow", hint)


def _engine(call: CommandContext) -> Iterator[Diagnosis]:
    """Decode in a child process, because a library built for another CPU kills the process that it runs in."""
    from mullama.engines.selftest import selftest
    from mullama.manifest.spec import Manifest

    library = Files.here(call.env).library(Manifest(mullama="v1"))
    tiny = next(file.path for file in library.locate("builtin:tiny").files if file.path)
    result = selftest(tiny, state_root(call.env) / "selftest", call.env)
    if not result.works:
        hint = "install a build for this CPU, such as one without native instructions"
        yield Diagnosis("engine", "failure", f"llama.cpp cannot compute here: {result.report}", hint)
    elif not result.extra_buffers:
        hint = "memory.extra_buffers: false disables them"
        yield Diagnosis("engine", "warning", f"llama.cpp computes, but {result.report}", hint)
    else:
        yield Diagnosis("engine", "ok", "llama.cpp loads the built-in model and computes")


def _memory(call: CommandContext) -> Iterator[Diagnosis]:
    from mullama.reconcile.machine import observe_machine

    machine = observe_machine()
    low = machine.ram_total and machine.ram_available < machine.ram_total // 20
    text = f"{size(machine.ram_available)} of {size(machine.ram_total)} are available"
    yield Diagnosis("memory", "warning" if low else "ok", text)


def _gpus(call: CommandContext) -> Iterator[Diagnosis]:
    from mullama.reconcile.machine import gpu_backends, host_devices, local_devices

    gpus = local_devices(call.env)
    yield from map(_device, gpus)
    if not gpus:
        backends = ", ".join(gpu_backends())
        why = f"no GPU found by {backends}" if backends else "llama.cpp is built without a GPU backend"
        yield Diagnosis("gpu", "note", f"{why}: models run on the CPU")
    if has_manifest(call):
        yield from map(_device, host_devices(load_manifest(call).manifest.hardware.rpc))
    for mask in GPU_MASKS:
        if mask in call.env:
            yield Diagnosis("gpu", "note", f"{mask}={call.env[mask]} limits the visible GPUs")


def _device(device: Device) -> Diagnosis:
    if device.fault:
        return Diagnosis("gpu", "warning", f"{device.name}: {device.fault}", "models that need it wait for it")
    ids = "".join(f", {id}" for id in device.ids)
    text = f"{device.name} ({device.description}{ids}): {size(device.free)} of {size(device.total)} are free"
    return Diagnosis("gpu", "ok", text)


def _disk(call: CommandContext) -> Iterator[Diagnosis]:
    root = data_root(call.env)
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        yield Diagnosis("store", "failure", f"{existing} is not writable", "set MULLAMA_CACHE_DIR to another folder")
    free = shutil.disk_usage(existing).free
    low = free < _LOW_DISK
    hint = "set MULLAMA_CACHE_DIR to a folder on a larger disk" if low else ""
    yield Diagnosis("store", "warning" if low else "ok", f"{root}: {size(free)} free", hint)


def _state(call: CommandContext) -> Iterator[Diagnosis]:
    running = [record for records in instances(state_root(call.env)) if (record := records.server())]
    for record in running:
        text = f"pid {record.pid} serves {record.manifest or 'no manifest'} on {', '.join(record.listen)}"
        old = record.version != mullama.__version__
        hint = f"it is version {record.version}: run mullama down, then apply" if old else ""
        yield Diagnosis("server", "warning" if old else "ok", text, hint)
    if not running:
        yield Diagnosis("server", "note", "no server is running")


def _manifest(call: CommandContext) -> Iterator[Diagnosis]:
    if not has_manifest(call):
        yield Diagnosis("manifest", "note", "no manifest in this folder", "mullama init writes one")
        return
    manifest = load_manifest(call).manifest
    yield Diagnosis("manifest", "ok", f"valid, {counted(len(manifest.models), 'model')}")


def _ports(call: CommandContext) -> Iterator[Diagnosis]:
    """Check that the addresses of the manifest are free or belong to a server of mullama."""
    settings = load_manifest(call).manifest.server if has_manifest(call) else None
    listen = settings.listen if settings else _DEFAULT_LISTEN
    ours = {address for records in instances(state_root(call.env)) if (r := records.server()) for address in r.listen}
    for address in listen:
        host, _, port = address.rpartition(":")
        if address.startswith("unix:") or not port.isdigit() or port == "0":
            continue
        if address in ours:
            yield Diagnosis("port", "ok", f"{address} is used by mullama")
        elif reason := _taken(host.strip("[]"), int(port)):
            asked = client_address(address, tls=settings is not None and settings.tls is not None)
            if asked is not None and discover.answers(asked):
                text = f"{address} is used by a mullama server under another state folder"
                yield Diagnosis("port", "warning", text, f"use --host {asked}, or set MULLAMA_STATE_DIR")
                continue
            hint = "is it Ollama? server.listen sets another address"
            yield Diagnosis("port", "failure", f"{address}: {reason}", hint)
        else:
            yield Diagnosis("port", "ok", f"{address} is free")


def _taken(host: str, port: int) -> str:
    """Return the reason why the address cannot be bound, empty when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _stores(call: CommandContext) -> Iterator[Diagnosis]:
    from mullama.store.foreign import Foreign, usual_roots

    roots = usual_roots(call.env)
    for kind, folders in (("Hugging Face", roots.huggingface), ("Ollama", roots.ollama)):
        for folder in folders:
            if Path(folder).is_dir():
                readable = os.access(folder, os.R_OK | os.X_OK)
                text = f"{kind}: {folder}" + ("" if readable else " is not readable")
                yield Diagnosis("reuse", "ok" if readable else "warning", text)
    models = Foreign(roots).registry_models()
    if models:
        yield Diagnosis("reuse", "note", f"{counted(len(models), 'model')} of Ollama can be used in place")


def _hub(call: CommandContext) -> Iterator[Diagnosis]:
    for name in _HUB:
        if name in call.env:
            yield Diagnosis("hub", "note", f"{name}={masked(call.env[name])}")
    files = Files.here(call.env)
    if files.offline(call.options.offline):
        yield Diagnosis("hub", "note", "not checked: offline")
        return
    from mullama.manifest.spec import Manifest
    from mullama.sources.huggingface import hub_credential, user

    manifest = load_manifest(call).manifest if has_manifest(call) else Manifest(mullama="v1")
    settings = files.settings(manifest)
    if not hub_credential(settings.hub).headers:
        yield Diagnosis("hub", "note", "no token: gated models cannot be downloaded", "mullama login saves one")
        return
    try:
        yield Diagnosis("hub", "ok", f"the token belongs to {user(settings.hub)}")
    except MullamaError as error:
        yield Diagnosis("hub", "warning", error.message, error.hint)


def _environment(call: CommandContext) -> Iterator[Diagnosis]:
    yield from unread_findings(call.env)


def unread_findings(env: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Report variables of Ollama and of other programs that mullama does not read, with what replaces them."""
    instead = {**OLLAMA, **UNREAD}
    for name in sorted(name for name in env if name.startswith("OLLAMA_") or name in UNREAD):
        if name == "OLLAMA_MODELS":
            yield Diagnosis("environment", "note", f"{name} is set", f"here: {instead[name]}")
        elif name in instead:
            yield Diagnosis("environment", "warning", f"{name} is set but not read", f"here: {instead[name]}")
        else:
            yield Diagnosis("environment", "note", f"{name} is set but not read")


CHECKS = (_version, _cpu, _engine, _memory, _gpus, _disk, _state, _manifest, _ports, _stores, _hub, _environment)

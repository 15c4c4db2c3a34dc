"""A systemd unit that serves the manifest where it is."""

from __future__ import annotations

from mullama.errors import Unsupported
from mullama.export.base import Exported, ExportedFile, ExportInput, header
from mullama.export.container import local_files, stop_seconds
from mullama.export.secrets import environment_of, secret_files

_HOMES = ("/home/", "/root/", "/run/user/")


def export_systemd(given: ExportInput) -> Exported:
    """Return a unit with the name of the service. Raises `Unsupported` for a manifest without a file."""
    if given.path is None:
        raise Unsupported("a unit needs a manifest file", hint="-f FILE names it")
    options, name = given.options, given.options.name
    variables = environment_of(given.manifest)
    environment = f"/etc/{name}/environment"
    lines = [f"Install it as /etc/systemd/system/{name}.service."]
    if variables:
        lines.append(f"{environment} has a line NAME=VALUE for each secret:")
        lines += [f"  {v.name}: {v.use}{' (optional)' if v.optional else ''}" for v in variables]
    tls = given.manifest.server.tls
    certificates = [path for path in (tls.cert, tls.key, tls.client_ca) if path] if tls is not None else []
    read = (given.path, *local_files(given.manifest), *secret_files(given.manifest), *certificates)
    at_home = [path for path in read if path.startswith(_HOMES)]
    text = "\n".join((
        *(f"# {line}" for line in header("systemd", *lines).split("\n")),
        "[Unit]",
        f"Description=mullama, local LLMs of {_escaped(given.path)}",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={_word(options.program)} serve -f {_word(given.path)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=on-failure",
        "# The manifest is invalid: a restart does not help.",
        "RestartPreventExitStatus=4",
        "# The longest drain of a model and a margin.",
        f"TimeoutStopSec={stop_seconds(given.manifest)}s",
        "DynamicUser=yes",
        f"StateDirectory={name}",
        f"RuntimeDirectory={name}",
        f"Environment=MULLAMA_STATE_DIR=/var/lib/{name}/state MULLAMA_CACHE_DIR=/var/lib/{name}/weights",
        f"Environment=XDG_RUNTIME_DIR=/run/{name}",
        *([f"EnvironmentFile=-{environment}"] if variables else []),
        *(["# Devices of GPUs.", "SupplementaryGroups=video render"] if _uses_gpus(given) else []),
        *(["LimitMEMLOCK=infinity"] if any(m.memory.mlock for m in given.manifest.models.values()) else []),
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if at_home else 'yes'}",
        "PrivateTmp=yes",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ))  # fmt: skip
    notes = [f"the user of the unit must be able to read {path}" for path in at_home]
    return Exported(files=(ExportedFile(path=f"{name}.service", text=text),), notes=tuple(notes))


def _uses_gpus(given: ExportInput) -> bool:
    """Return True unless each model keeps all layers in main memory."""
    return any(model.gpu.layers != 0 for model in given.manifest.models.values())


def _word(text: str) -> str:
    """Return one argument of a command line of a unit."""
    plain = _escaped(text).replace("$", "$$")
    return f'"{plain}"' if any(c in plain for c in " \t'\"") else plain


def _escaped(text: str) -> str:
    """Return a text with the characters escaped that systemd would read otherwise."""
    return text.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"').replace("\n", "\\n")

"""`mullama launch`: start a coding agent for a model of the server, without an edit of its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from mullama.cli.api_client.discover import FoundServer, api_key, find, has_manifest, is_remote, load_manifest, require
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE
from mullama.cli.clients.served import (
    client_named,
    declared_model,
    existing,
    first_target,
    plan_of,
    server_address,
    user_folders,
    warning_of,
)
from mullama.cli.models.load import default_model
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.client.address import ServerAddress
from mullama.clients.base import NO_KEY, ClientProgram, ServedModel, StartCommand
from mullama.clients.programs import CLIENTS
from mullama.errors import Invalid, NotFound, Refused, Unsupported
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.manifest.spec import ClientConfig


def launch_options(parser: Parser) -> None:
    parser.add_argument("name", metavar="AGENT", help=f"one of {', '.join(CLIENTS)}")
    parser.add_argument("arguments", nargs="*", metavar="ARGS", help="arguments of the agent, after --")
    parser.add_argument("-m", "--model", metavar="NAME", help="the model (default: that of clients in the manifest)")
    parser.add_argument("--print", action="store_true", help="print the command and its variables; start nothing")
    instance_options(parser)
    parser.unknown_hint = "the options of an agent stand after --: mullama launch AGENT -- OPTIONS"


def launch(call: CommandContext) -> int:
    """Start the agent in place of this process, so that its exit code and its signals are its own."""
    client = client_named(call.options.name)
    config = load_manifest(call).manifest.clients.get(client.name) if has_manifest(call) else None
    program = shutil.which(client.program, path=call.env.get("PATH"))
    if program is None and not call.options.print:
        raise NotFound(
            f"{client.title} is not here: there is no {client.program} in PATH", name=client.name,
            hint=f"install it: {client.install}",
        )  # fmt: skip
    variable = config.key.from_env if config and config.key else None
    secret = _secret(call, variable)
    found = _declared(call, client, config) if call.options.print else None
    served, model = found or _served(call, client, config)
    if variable is None and secret is not None:
        served = replace(served, key="MULLAMA_API_KEY")
    if client.starts_with_files:
        _require_files(call, client, served)
    if warning := warning_of(client, served, config, model):
        call.terminal.note(f"warning: {warning}")
    command = client.start(served, secret or NO_KEY)
    if call.options.print:
        _print(call, command, secret)
        return DONE
    assert program is not None
    return _become(call, program, command, served.url)


def _declared(
    call: CommandContext, client: ClientProgram, config: ClientConfig | None
) -> tuple[ServedModel, str] | None:
    """Return the model by the manifest where no server runs, with its own name; None where one runs, and without a
    manifest."""
    if is_remote(call) or not has_manifest(call) or find(call) is not None:
        return None
    from mullama.cli.models.declared import Declared, model_of
    from mullama.manifest.spec import ClientConfig

    loaded = load_manifest(call)
    declared = Declared(manifest=loaded.manifest, path=loaded.path, server=None)
    name = call.options.model or (config.model if config else None)
    if name is not None and PEER_SIGN not in name:
        with suppress(Unsupported):  # a route to a peer, whose models are not known here
            model_of(loaded.manifest, name)
    wanted = (config or ClientConfig()).model_copy(update={"model": name})
    served = declared_model(call, declared, client.name, wanted)
    return served, first_target(loaded.manifest, served.model)


def _served(call: CommandContext, client: ClientProgram, config: ClientConfig | None) -> tuple[ServedModel, str]:
    """Return the model of the running server, with its own name. If none runs, one is started, but not to print."""
    server = require(call) if call.options.print else ensure_server(call)
    name = call.options.model or (config.model if config else None) or default_model(server)
    model = server.client.get(model_path(name))
    _require_usable(client, name, model)
    served = ServedModel(
        url=(config.url if config else None) or _url(server),
        model=name,
        context=(config.context if config else None) or model.get("context_size"),
        key=config.key.from_env if config and config.key else None,
        tools=_calls_tools(model),
    )
    return served, str(model.get("route_of") or model.get("name") or name)


def _calls_tools(model: Mapping[str, Any]) -> bool:
    """Return True for a model that calls tools, and for one of a peer, of which that is not known."""
    return "tools" in model["capabilities"] or PEER_SIGN in str(model.get("route_of") or model.get("name") or "")


def _require_usable(client: ClientProgram, name: str, model: Mapping[str, Any]) -> None:
    """Raise `Unsupported` for a model that generates no text, or calls no tools where the agent needs them."""
    if "completion" not in model["capabilities"]:
        raise Unsupported(f"{name} generates no text, so {client.title} cannot use it", hint="-m names another model")
    if client.needs_tools and not _calls_tools(model):
        raise Unsupported(
            f"{name} calls no tools, and {client.title} works by tools",
            hint="-m names another model; mullama show NAME lists the capabilities",
        )


def _secret(call: CommandContext, variable: str | None) -> str | None:
    """Return the API key; None without one. Raises `Invalid` for a variable that is not set."""
    if variable is None:
        return api_key(call)
    if value := call.env.get(variable, "").strip():
        return value
    raise Invalid(f"{variable}, the key of this client, is not set", hint=f"export {variable}=KEY, then try again")


def _url(server: FoundServer) -> str:
    tls = server.record is not None and _stack(server).get("server", {}).get("tls") is not None
    return server_address(server, tls=tls)


def _stack(server: FoundServer) -> Mapping[str, Any]:
    """Return the manifest that a server has applied."""
    manifest: Mapping[str, Any] = server.client.get("/api/v1/stack")["manifest"]
    return manifest


def _require_files(call: CommandContext, client: ClientProgram, served: ServedModel) -> None:
    """Raise `Refused` unless the files of the client name this server: its command cannot."""
    for file in map(existing, client.files(served, user_folders(call))):
        plan = plan_of(client.name, file)
        if plan.before is None or plan.changes:
            raise Refused(
                f"{client.title} reads its server from {file.path} alone, and that is not set up for {served.model}",
                hint=f"declare clients: {{{client.name}: {served.model}}} and run mullama clients apply {client.name}",
            )


def _print(call: CommandContext, command: StartCommand, secret: str | None) -> None:
    import shlex

    for name in command.without:
        call.terminal.line(f"unset {name}")
    for name, value in command.variables.items():
        shown = "***" if secret is not None and value == secret else value
        call.terminal.line(f"export {name}={shlex.quote(shown)}")
    call.terminal.line(shlex.join([*command.words, *call.options.arguments]))


def _around_proxies(env: Mapping[str, str], url: str) -> dict[str, str]:
    """Return the variables that lead requests to a server of this machine past the proxies of the environment."""
    host = ServerAddress.parse(url).host
    has_proxy = any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in env)
    if not has_proxy or host not in _LOOPBACK:
        return {}
    return {name: ",".join(filter(None, (env.get(name), host))) for name in ("NO_PROXY", "no_proxy")}


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _become(call: CommandContext, program: str, command: StartCommand, url: str) -> NoReturn:
    """Replace this process by the agent."""
    words = [program, *command.words[1:], *call.options.arguments]
    kept = {name: value for name, value in call.env.items() if name not in command.without}
    variables = {**kept, **_around_proxies(kept, url), **command.variables}
    call.terminal.out.flush()
    call.terminal.err.flush()
    if sys.platform == "win32":  # its exec leaves the new process without the console
        raise SystemExit(subprocess.run(words, env=variables, check=False).returncode)
    os.execve(program, words, variables)

"""`mullama status` and `ps`: show the state of a running server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.cli.api_client.discover import require
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE, PARTLY
from mullama.cli.on_fleet.fleet_call import find_fleet
from mullama.cli.on_ray.options import on_cluster, place_options
from mullama.units import counted, duration, size

# Conditions that are shown when they are true. All others are shown when they are false.
SHOWN_WHEN_TRUE = ("Reconciling", "Degraded", "Drifted")


def status_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.json_option(parser)
    place_options(parser)


def status(call: CommandContext) -> int:
    """Exit with 0 for a ready server, 8 for a degraded one, 11 when none is running."""
    if on_cluster(call):
        from mullama.cli.on_ray import commands

        return commands.status(call)
    if (fleet := find_fleet(call)) is not None:
        from mullama.cli.on_fleet import views

        return views.status(call, fleet)
    tree = require(call).client.get("/api/v1/status")
    if call.options.json:
        call.terminal.json(tree)
    else:
        _show(call, tree)
    return PARTLY if tree.get("state") == "degraded" else DONE


def _show(call: CommandContext, tree: Mapping[str, Any]) -> None:
    terminal = call.terminal
    terminal.line(
        f"mullama {tree['version']}, pid {tree['pid']}, up {duration(tree['uptime'])}, "
        f"revision {tree['generation']}: {tree['state']}"
    )
    origin = tree.get("origin") or {}
    profiles = "".join(f" --profile {name}" for name in origin.get("profiles") or ())
    part = f" (only {', '.join(targets)} applied of it)" if (targets := origin.get("targets")) else ""
    terminal.line(f"manifest  {origin.get('path') or 'none'}{profiles}{part}")
    if git := tree.get("git"):
        commit = f" at commit {git['commit'][:12]}" if git["commit"] else ""
        terminal.line(f"git       {git['url']} {git['ref']}{commit}")
    terminal.line(f"listens   {', '.join(tree.get('listen') or ('nowhere',))}")
    for text in _conditions(tree.get("conditions") or ()):
        terminal.line(text)
    if models := tree.get("models"):
        terminal.line()
        _models_table(call, models)
        if (tree.get("memory") or {}).get("used"):
            terminal.line(_total(tree, models))
        for model in models:
            if origin := model.get("fetched_from"):
                terminal.line(f"{model['name']}: files from {origin}")
            for text in _conditions(model.get("conditions") or (), model["name"]):
                terminal.line(text)
            for text in model.get("warnings") or ():
                terminal.line(f"! {model['name']}: {text}")
            if devices := model.get("devices"):
                terminal.line(f"  {model['name']} is on {', '.join(map(_device, devices))}")
        for text in filter(None, (*map(_pool, models), *map(_drafts, models), *map(_checkpoints, models))):
            terminal.line(text)
        beside = [model["name"] for model in models if model.get("beside_manifest")]
        if beside and origin.get("path"):
            from mullama.plan.report import beside_line

            terminal.line(beside_line(beside))
    parts = (("peers", _peer), ("groups", _group), ("rates", _rate))
    for lines in (map(form, tree.get(name) or ()) for name, form in parts):
        if shown := list(filter(None, lines)):
            terminal.line()
            for text in shown:
                terminal.line(text)
    if routes := tree.get("routes"):
        shares = tree.get("shares") or {}
        terminal.line()
        if plain := [f"{name} -> {target}" for name, target in routes.items() if name not in shares]:
            terminal.line("routes    " + ", ".join(plain))
        for name, share in shares.items():
            terminal.line(_route(name, share))


def _group(group: Mapping[str, Any]) -> str:
    """Format a group: `group heavy: 1 of 2 loaded: coder; 3 requests wait for writer`."""
    loaded = group["loaded"]
    names = f": {', '.join(loaded)}" if loaded else ""
    waiting = "".join(f"; {_wait_for(name, count)}" for name, count in group["waiting"].items())
    return f"group {group['name']}: {len(loaded)} of {group['max']} loaded{names}{waiting}"


def _peer(peer: Mapping[str, Any]) -> str:
    """Format a peer: `peer box (http://box:11434): ready, 3 requests, passed over: chat@box`."""
    reason = f": {peer['reason']}" if peer["reason"] else ""
    passed = f", passed over: {', '.join(peer['passed_over'])}" if peer.get("passed_over") else ""
    load = counted(peer["running"], "request")
    return f"peer {peer['name']} ({peer['url']}): {peer['state']}, {load}{passed}{reason}"


def _wait_for(name: str, count: int) -> str:
    return f"1 request waits for {name}" if count == 1 else f"{count:,} requests wait for {name}"


def _rate(rate: Mapping[str, Any]) -> str:
    """Format a rate limit that is in use: `auth.keys.ci.rate.requests 60/m: 12 left`; "" for a whole one."""
    if not rate["full_in"] and not rate["refused"]:
        return ""
    refused = f", {counted(rate['refused'], 'request')} refused" if rate["refused"] else ""
    return f"{rate['limit']} {rate['rate']}: {rate['remaining']:,} left{refused}"


def _device(device: Mapping[str, Any]) -> str:
    """Format a device of a model: `RPC0 (10.0.0.2:50052): 8 layers, 1.2 GiB`."""
    host = f" ({device['host']})" if device.get("host") else ""
    layers = f"{counted(device['layers'], 'layer')}, " if device["layers"] else ""
    return f"{device['name']}{host}: {layers}{size(device['bytes'])}"


def _conditions(conditions: Any, subject: str = "") -> list[str]:
    """Format the conditions that are not as they should be."""
    return [_condition(c, subject) for c in conditions if _is_abnormal(c)]


def _condition(condition: Mapping[str, Any], subject: str) -> str:
    head = f"{subject} " if subject else ""
    state = f"{condition['type']}={holds(condition['status'])} {condition.get('reason') or ''}".rstrip()
    message = condition.get("message")
    hint = f" ({condition['hint'].replace('`', '')})" if condition.get("hint") else ""
    return f"! {head}{state}: {message}{hint}" if message else f"! {head}{state}{hint}"


def _is_abnormal(condition: Mapping[str, Any]) -> bool:
    return holds(condition["status"]) == (condition["type"] in SHOWN_WHEN_TRUE)


def holds(status: object) -> bool:
    """Return True for the status of a condition that holds, as a boolean or as a word."""
    return status is True or str(status).casefold() == "true"


def _route(name: str, share: Mapping[str, Any]) -> str:
    """Format a route with options: `route chat -> stable 90, candidate 10, else small`."""
    models = share["to"]
    to = [f"{one['model']} {one['weight']}" for one in models] if len(models) > 1 else [one["model"] for one in models]
    return f"route {name} -> {', '.join([*to, *(f'else {other}' for other in share['fallback'])])}"


def _models_table(call: CommandContext, models: list[Mapping[str, Any]]) -> None:
    heads = ("MODEL", "STATE", "MEMORY", "CONTEXT", "ACTIVE", "WAITING", "FROM")
    rows = (
        (
            model["name"],
            model["state"],
            _memory(model),
            _context(model),
            str(model.get("active") or 0),
            str(model.get("waiting") or 0),
            str(model.get("source") or "-"),
        )
        for model in models
    )
    call.terminal.table(heads, rows)


def _checkpoints(model: Mapping[str, Any]) -> str:
    """Format the checkpoints of a model: `chat: 5 checkpoints (12 MiB of 256 MiB), 4 prompts continued from one`."""
    kept = model.get("checkpoints")
    if not kept or not kept["count"]:
        return ""
    memory = f"{size(kept['bytes'])} of {size(kept['most_bytes'])}"
    used = counted(kept["restored"], "prompt")
    return f"{model['name']}: {counted(kept['count'], 'checkpoint')} ({memory}), {used} continued from one"


def _drafts(model: Mapping[str, Any]) -> str:
    """Format the guesses of a model: `chat: ngram, 81% of 1,204 guesses accepted`; "" for a model without."""
    draft = model.get("draft")
    if not draft:
        return ""
    guessed = draft["guessed"]
    share = f"{draft['accepted'] / guessed:.0%} of {guessed:,} guesses accepted" if guessed else "no guesses yet"
    return f"{model['name']}: {draft['kind']}, {share}"


def _pool(model: Mapping[str, Any]) -> str:
    """Format the pool of a model: `chat: 812 of 8,192 tokens used (worst case 32,768), 1 request set aside`."""
    pool = model.get("pool")
    if not pool:
        return ""
    aside = f", {counted(pool['set_aside'], 'request')} set aside" if pool["set_aside"] else ""
    return (
        f"{model['name']}: {pool['used']:,} of {pool['size']:,} tokens used (worst case {pool['worst_case']:,}){aside}"
    )


def _context(model: Mapping[str, Any]) -> str:
    """Format the context size of a model; one that failed has no context."""
    return "-" if model["state"] == "failed" else str(model.get("context_size") or "-")


def _memory(model: Mapping[str, Any]) -> str:
    """Format the memory that no earlier row counts: `1.3 GiB`, `451 MiB + weights of chat`, `shared with chat`."""
    memory, shared = model.get("memory"), model.get("shared_with")
    own = model.get("memory_own", memory)
    if not memory:
        return "-"
    if not shared:
        return size(memory)
    return f"{size(own)} + weights of {shared}" if own else f"shared with {shared}"


def _total(tree: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """Format the number of models and their memory: `14 names, 2 models in memory, 1.3 GiB`."""
    memory = tree.get("memory")
    if not memory:  # a server of an earlier version
        return f"{counted(len(models), 'model')}, {size(sum(m.get('memory') or 0 for m in models))} total"
    names = f"{counted(memory['names'], 'name')}, " if memory["names"] > memory["models"] else ""
    return f"{names}{counted(memory['models'], 'model')} in memory, {size(memory['used'])}"


def ps_options(parser: Parser) -> None:
    status_options(parser)
    parser.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="only models whose name begins so")
    parser.add_argument("-a", "--all", action="store_true", help="also list models that are not loaded")


def ps(call: CommandContext) -> int:
    """List the models that are in memory now."""
    if (fleet := find_fleet(call)) is not None:
        from mullama.cli.on_fleet import views

        return views.loaded(call, fleet, _wanted, _LOADED, _loaded)
    tree = require(call).client.get("/api/v1/status")
    models = _wanted(call, tree)
    if call.options.json:
        call.terminal.json({"models": models, "memory": tree.get("memory")})
        return DONE
    call.terminal.table(_LOADED, map(_loaded, models))
    legend = "; * is the default model" if any(model.get("is_default") for model in models) else ""
    call.terminal.line(_total(tree, models) + legend)
    for text in filter(None, map(_drafts, models)):
        call.terminal.line(text)
    return DONE


_LOADED = ("NAME", "STATE", "SIZE", "PROCESSOR", "CONTEXT", "ACTIVE", "UNTIL")


def _wanted(call: CommandContext, tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the models of a status that `ps` lists."""
    prefix = call.options.prefix.lower()
    models = [model for model in tree.get("models") or () if model["name"].lower().startswith(prefix)]
    return [model for model in models if call.options.all or model.get("memory")]


def _loaded(model: Mapping[str, Any]) -> tuple[str, ...]:
    memory, active = model.get("memory"), model.get("active")
    return (
        f"{model['name']} *" if model.get("is_default") else model["name"],
        model["state"],
        _memory(model),
        _processor(model) if memory else "-",
        _context(model),
        counted(active, "request") if active else "-",
        _until(model),
    )


def _processor(model: Mapping[str, Any]) -> str:
    """Format the devices with layers: `CPU`, `CUDA0 33 layers`, `RPC0 8, CUDA0 25 layers`."""
    devices, layers = model.get("devices") or (), model.get("gpu_layers")
    if not layers:
        return "CPU"
    counts = [f"{d['name']} {d['layers']}" if d["layers"] else str(d["name"]) for d in devices]
    if not counts:
        return f"GPU, {counted(layers, 'layer')}"
    word = " layer" if layers == 1 else " layers"
    return ", ".join(counts) + (word if any(d["layers"] for d in devices) else "")


def _until(model: Mapping[str, Any]) -> str:
    """Format the time until an idle model is unloaded: `in 4 min`, or `-` when it stays loaded."""
    expires = model.get("expires")
    if not isinstance(expires, (int, float)):
        return str(expires) if expires else "-"
    return f"in {duration(max(0.0, expires - time.time()))}"

"""`status`, `usage`, `logs` and `history` of a fleet: the answers of all hosts in one table, each with its host."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext
from mullama.cli.app.exit_codes import DONE, PARTLY, exit_code
from mullama.cli.on_fleet.fleet_call import FleetCall
from mullama.errors import MullamaError
from mullama.targets.fleet.hosts import FleetHostPort, on_each
from mullama.units import size

if TYPE_CHECKING:
    from mullama.client.http import StreamStop

Answers = Mapping[str, Any]


def ask(fleet: FleetCall, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the answer or the error of each host. Raises the error of the first one if no host answers."""
    answers: dict[str, Any] = on_each(fleet.hosts.values(), lambda host: host.get(path, query))
    errors = errors_of(answers)
    if errors and len(errors) == len(answers):
        raise errors[0]
    return answers


def good(answers: Answers) -> dict[str, Any]:
    """Return the answers without the errors."""
    return {name: answer for name, answer in answers.items() if not isinstance(answer, MullamaError)}


def errors_of(answers: Answers) -> list[MullamaError]:
    """Return the errors of the hosts that do not answer."""
    return [answer for answer in answers.values() if isinstance(answer, MullamaError)]


def note_errors(call: CommandContext, fleet: FleetCall, answers: Answers) -> int:
    """Write a line for each host that is away or does not answer; return the exit code: 8 if one does not answer."""
    errors = errors_of(answers)
    for name in fleet.away:
        call.terminal.note(f"{name} is away")
    for error in errors:
        call.terminal.note(f"error: {error.message}")
    return PARTLY if errors else DONE


def tree_of(answers: Answers) -> dict[str, Any]:
    """Return the answers for JSON: an error as `{"error": {"kind", "message"}}`."""
    return {
        name: {"error": {"kind": answer.kind.value, "message": answer.message}}
        if isinstance(answer, MullamaError)
        else answer
        for name, answer in answers.items()
    }


def status(call: CommandContext, fleet: FleetCall) -> int:
    """Exit with 0 if every host is ready, with 8 if one is degraded or does not answer."""
    answers = on_each(fleet.hosts.values(), lambda host: host.get("/api/v1/status"))
    found, errors = good(answers), errors_of(answers)
    if call.options.json:
        call.terminal.json({"format": "mullama.fleet-status/1", "fleet": fleet.name, "hosts": tree_of(answers),
                            "away": list(fleet.away)})  # fmt: skip
    else:
        heads = ("HOST", "STATE", "REVISION", "MODELS", "MEMORY", "VERSION", "APPLIED BY")
        rows = [_host_row(name, answer) for name, answer in answers.items()]
        call.terminal.table(heads, [*rows, *((name, "away", *"-----") for name in fleet.away)])
        models = [(name, row) for name, tree in found.items() for row in tree["models"]]
        if models:
            call.terminal.line()
            lenders = {host.rpc: name for name, host in fleet.loaded.manifest.fleet.hosts.items() if host.rpc}
            columns = ("MODEL", "HOST", "STATE", "ACTIVE", "WAITING", "MEMORY", "LAYERS")
            call.terminal.table(columns, sorted(_model_row(name, row, lenders) for name, row in models))
            for text in sorted(_faults(models)):
                call.terminal.line(text)
        note_errors(call, fleet, answers)
    if not found:
        return exit_code(errors[0])
    degraded = any(tree.get("state") == "degraded" for tree in found.values())
    return PARTLY if errors or degraded else DONE


def _host_row(name: str, answer: Any) -> tuple[str, ...]:
    if isinstance(answer, MullamaError):
        return (name, "no answer", "-", "-", "-", "-", "-")
    loaded = sum(row["state"] == "ready" for row in answer["models"])
    used = (answer.get("memory") or {}).get("used") or 0
    origin = answer.get("origin") or {}
    return (
        name,
        str(answer["state"]),
        str(answer["generation"]),
        f"{loaded} of {len(answer['models'])}",
        size(used) if used else "-",
        str(answer["version"]),
        origin.get("fleet") or origin.get("path") or "-",
    )


def _model_row(name: str, row: Mapping[str, Any], lenders: Mapping[str, str]) -> tuple[str, ...]:
    """Return the cells of a model. lenders: the hosts that lend devices, by their address."""
    memory = size(row["memory"]) if row.get("memory") else "-"
    devices = row.get("devices") or ()
    places = ((lenders.get(device.get("host") or "", device["name"]), device["layers"]) for device in devices)
    layers = ", ".join(f"{count} on {place}" for place, count in places)
    return (
        str(row["name"]), name, str(row["state"]), str(row["active"]), str(row["waiting"]), memory, layers or "-",
    )  # fmt: skip


def _faults(models: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the reason of each model that does not serve as declared."""
    for host, row in models:
        if row["state"] in ("failed", "degraded"):
            conditions = row.get("conditions") or ({"reason": row["state"], "message": ""},)
            yield f"{row['name']} on {host}: {conditions[0]['reason']}: {conditions[0]['message']}"


def loaded(
    call: CommandContext, fleet: FleetCall, wanted: Callable[[CommandContext, Mapping[str, Any]], Sequence[Any]],
    heads: Sequence[str], cells: Callable[[Mapping[str, Any]], Sequence[str]],
) -> int:  # fmt: skip
    """List the models that the hosts have in memory. wanted: returns those of a status. cells: returns those of one."""
    answers = ask(fleet, "/api/v1/status")
    rows = [(name, model) for name, tree in good(answers).items() for model in wanted(call, tree)]
    if call.options.json:
        models = [{"host": name, **model} for name, model in rows]
        call.terminal.json({"format": "mullama.fleet-ps/1", "fleet": fleet.name, "models": models})
    else:
        call.terminal.table(("HOST", *heads), ((name, *cells(model)) for name, model in rows))
    return note_errors(call, fleet, answers)


def usage_rows(call: CommandContext, fleet: FleetCall, query: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """Return the usage of all hosts as one document whose rows have `host`, and the exit code."""
    answers = ask(fleet, "/api/v1/usage", query)
    found = good(answers)
    rows = [{"host": name, **row} for name, tree in found.items() for row in tree["rows"]]
    first = next(iter(found.values()))
    return {**first, "by": ["host", *first["by"]], "rows": rows}, note_errors(call, fleet, answers)


def history(call: CommandContext, fleet: FleetCall, row_of: Callable[[dict[str, Any]], Sequence[str]]) -> int:
    """List the revisions of all hosts, newest first by the clock of each. row_of: returns the cells of one."""
    answers = ask(fleet, "/api/v1/history")
    rows = [{"host": name, **row} for name, tree in good(answers).items() for row in tree["generations"]]
    rows.sort(key=lambda row: -row["when"])
    code = note_errors(call, fleet, answers)
    if call.options.json:
        call.terminal.json({"format": "mullama.fleet-history/1", "fleet": fleet.name, "generations": rows})
    else:
        heads = ("HOST", "REVISION", "WHEN", "BY", "TRIGGER", "FLEET", "CHANGES")
        call.terminal.table(heads, (_history_row(row, row_of(row)) for row in rows))
    return code


def _history_row(row: Mapping[str, Any], cells: Sequence[str]) -> tuple[str, ...]:
    number, when, by, trigger, _, changes = cells
    return (row["host"], number, when, by, trigger, (row.get("origin") or {}).get("fleet") or "-", changes)


def logs(call: CommandContext, fleet: FleetCall, query: Mapping[str, str], line_of: Callable[[Any], str]) -> int:
    """Print the last lines of all hosts by the time of each, then new lines as they come."""
    answers = ask(fleet, "/api/v1/logs", query)
    found = good(answers)
    lines = sorted(
        ((line["when"], name, line) for name, tree in found.items() for line in tree["lines"]), key=lambda row: row[:2]
    )
    for _, name, line in lines[-int(query["tail"]) or len(lines) :]:
        _print_line(call, name, line, line_of)
    code = note_errors(call, fleet, answers)
    if call.options.follow:
        after = {name: str(tree["last"]) for name, tree in found.items()}
        wanted = {name: value for name, value in query.items() if name not in ("tail", "since")}
        _follow([fleet.hosts[name] for name in found], after, wanted, call, line_of)
    return code


def _print_line(call: CommandContext, host: str, line: Mapping[str, Any], line_of: Callable[[Any], str]) -> None:
    if getattr(call.options, "json", False):
        call.terminal.raw(json.dumps({"host": host, **line}, ensure_ascii=False) + "\n")
    else:
        call.terminal.line(f"{host} {line_of(line)}")


def _follow(
    hosts: Sequence[FleetHostPort], after: Mapping[str, str], wanted: Mapping[str, str], call: CommandContext,
    line_of: Callable[[Any], str],
) -> None:  # fmt: skip
    """Print new lines until every host ended its stream. The error of a host is a line, and ends its part."""
    from mullama.client.http import StreamStop

    lines: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    stops = {host.name: StreamStop() for host in hosts}
    for host in hosts:
        query = {"after": after[host.name], **wanted}
        threading.Thread(target=_read, args=(host, query, stops[host.name], lines), daemon=True).start()
    open_streams = len(hosts)
    try:
        while open_streams:
            name, line = lines.get()
            if isinstance(line, Mapping):
                _print_line(call, name, line, line_of)
                continue
            open_streams -= 1
            call.terminal.note(f"error: {line.message}" if line is not None else f"{name} ended its log")
    finally:
        for stop in stops.values():
            stop.stop()


def _read(
    host: FleetHostPort, query: Mapping[str, str], stop: StreamStop, lines: queue.SimpleQueue[tuple[str, Any]]
) -> None:
    try:
        for line in host.events("/api/v1/logs/events", query, stop):
            lines.put((host.name, line))
    except MullamaError as error:
        lines.put((host.name, error))
    else:
        lines.put((host.name, None))

"""Files that are generated from the code: the reference pages and the JSON Schema."""

from __future__ import annotations

import argparse

from mullama.cli.app.commands import COMMANDS
from mullama.cli.app.environment import ENVIRONMENT, environment_page
from mullama.cli.app.exit_codes import DIFF_MEANINGS, MEANINGS
from mullama.cli.app.main import load
from mullama.cli.conditions_page import conditions_page
from mullama.cli.manifest.manifest import schema_text
from mullama.cli.outside_page import outside_page

_NOTE = "<!-- Written by `make docs` from the code; edit the code instead. -->"


def pages() -> dict[str, str]:
    """Return the text of every generated file by its path in the repository."""
    return {
        "schemas/mullama.v1.schema.json": schema_text(),
        "docs/reference/cli.md": cli_page(),
        "docs/reference/conditions.md": conditions_page(_NOTE),
        "docs/reference/environment.md": environment_page(_NOTE),
        "docs/reference/manifest.md": manifest_page(),
        "docs/reference/outside.md": outside_page(_NOTE),
        "mullama/manifest/spec/compiled_schemas.py": schemas_module(),
    }


def schemas_module() -> str:
    """Return the module of the core schemas."""
    from mullama.manifest.spec.emit import module

    return module()


def manifest_page() -> str:
    """Return the reference page of the manifest."""
    from mullama.manifest.reference import reference_page
    from mullama.plan.changes import COSTS

    return reference_page({path: cost.value for path, cost in COSTS.items()})


def cli_page() -> str:
    """Return the reference page of the command line: commands with their options, exit codes and environment."""
    lines = ["# The command line", "", _NOTE, ""]
    lines += ["`mullama COMMAND --help` prints the same text.", ""]
    lines += ["| command | purpose |", "|---|---|"]
    lines += [f"| [`{c.name}`](#mullama-{c.name}) | {c.summary} |" for c in COMMANDS]
    for command in COMMANDS:
        _, parser = load(command)
        lines += ["", f"## mullama {command.name}", "", *_command(parser)]
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {text} |" for code, text in MEANINGS.items()]
    lines += ["", "Of `mullama diff`:", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {text} |" for code, text in DIFF_MEANINGS.items()]
    lines += ["", "## Environment", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in ENVIRONMENT.items()]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser) -> list[str]:
    """Return the section of one command: summary, usage and a table of its arguments."""
    actions = [a for a in parser._actions if a.help != argparse.SUPPRESS and a.dest != "help"]
    line = " ".join([f"mullama {parser.prog.split()[-1]}", *(_usage(a) for a in actions)])
    rows = [f"| {_names(action)} | {_cell(action)} |" for action in actions]
    table = ["", "| option | meaning |", "|---|---|", *rows] if rows else []
    return [parser.description or "", "", f"    {line}", *table]


def _usage(action: argparse.Action) -> str:
    if not action.option_strings:
        shape = {"?": "[{}]", "*": "[{}…]", "+": "{}…"}.get(str(action.nargs), "{}")
        return shape.format(_value(action))
    value = "" if action.nargs == 0 else f" {_value(action)}"
    return f"[{action.option_strings[-1]}{value}]"


def _names(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action).replace("|", "\\|")
    return ", ".join(f"`{name} {value}`".replace(" `", "`") for name in action.option_strings) or f"`{value}`"


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(str(choice) for choice in action.choices)
    name = action.metavar or action.dest.upper()
    return " ".join(name) if isinstance(name, tuple) else name


def _cell(action: argparse.Action) -> str:
    return (action.help or "").replace("|", "\\|")

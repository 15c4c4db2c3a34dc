"""`mullama completions`: scripts that complete commands and options, generated from the parsers.

shtab is not used, because it does not support elvish.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionWord:
    """An option as it is typed, with a short description."""

    text: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionEntry:
    """One command: its name and aliases, summary, options, and the choices of its arguments."""

    names: tuple[str, ...]
    about: str
    options: tuple[OptionWord, ...]
    choices: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that may follow the command."""
        return (*(option.text for option in self.options), *self.choices)


def completions_options(parser: Parser) -> None:
    parser.add_argument("shell", choices=tuple(SHELLS), help="the shell")


def completions(call: CommandContext) -> int:
    """Print the script. Where it belongs is in the manual of each shell."""
    call.terminal.raw(SHELLS[call.options.shell](table()))
    return DONE


def table() -> tuple[CompletionEntry, ...]:
    """Return the entries of all commands; imports their modules."""
    from mullama.cli.app.commands import COMMANDS
    from mullama.cli.app.main import load

    return tuple(
        CompletionEntry(
            names=(command.name, *command.aliases),
            about=command.summary,
            options=_options(parser),
            choices=tuple(
                str(c) for a in parser._actions if not a.option_strings and a.choices is not None for c in a.choices
            ),
        )
        for command in COMMANDS
        for _, parser in [load(command)]
    )


def _options(parser: argparse.ArgumentParser) -> tuple[OptionWord, ...]:
    return tuple(
        OptionWord(text=name, about=(action.help or "").split(";")[0].split("(")[0].strip())
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for name in action.option_strings
    )


def bash(commands: tuple[CompletionEntry, ...]) -> str:
    cases = "".join(f"    {'|'.join(c.names)}) words='{' '.join(c.words)}' ;;\n" for c in commands)
    names = " ".join(c.names[0] for c in commands)
    return (
        "_mullama() {\n"
        '  local word="${COMP_WORDS[COMP_CWORD]}" words\n'
        '  case "${COMP_WORDS[1]}" in\n'
        f"{cases}    *) words='' ;;\n  esac\n"
        f"  [ \"$COMP_CWORD\" -eq 1 ] && words='{names}'\n"
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))\n'
        "}\ncomplete -o default -F _mullama mullama\n"
    )


def zsh(commands: tuple[CompletionEntry, ...]) -> str:
    names = "".join(f"    {_quoted(c.names[0] + ':' + c.about)}\n" for c in commands)
    cases = "".join(f"    {'|'.join(c.names)}) offered=({' '.join(c.words)}) ;;\n" for c in commands)
    return (
        "#compdef mullama\n_mullama() {\n  local -a commands offered\n"
        f"  commands=(\n{names}  )\n"
        "  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
        f'  case "$words[2]" in\n{cases}  esac\n'
        "  compadd -- $offered; _files\n}\n"
        # Either sourced, or autoloaded from fpath at the first completion, which it must then answer itself.
        'if [[ "${funcstack[1]}" == _mullama ]]; then _mullama "$@"; else compdef _mullama mullama; fi\n'
    )


def fish(commands: tuple[CompletionEntry, ...]) -> str:
    lines = []
    for command in commands:
        lines.append(f"complete -c mullama -n __fish_use_subcommand -a {command.names[0]} -d {_quoted(command.about)}")
        seen = f"'__fish_seen_subcommand_from {' '.join(command.names)}'"
        for option in command.options:
            flag = f"-l {option.text[2:]}" if option.text.startswith("--") else f"-s {option.text[1:]}"
            lines.append(f"complete -c mullama -n {seen} {flag} -d {_quoted(option.about)}")
        lines += [f"complete -c mullama -n {seen} -a {choice}" for choice in command.choices]
    return "\n".join(lines) + "\n"


def elvish(commands: tuple[CompletionEntry, ...]) -> str:
    cases = "".join(f"    &{name}=[{' '.join(c.words)}]\n" for c in commands for name in c.names)
    names = " ".join(c.names[0] for c in commands)
    return (
        "set edit:completion:arg-completer[mullama] = {|@words|\n"
        f"  var options = [\n{cases}  ]\n"
        f"  if (== (count $words) 2) {{ put {names} }} "
        "elif (has-key $options $words[1]) { all $options[$words[1]] }\n}\n"
    )


def powershell(commands: tuple[CompletionEntry, ...]) -> str:
    cases = "".join(
        f"    {_in_powershell(name)} = @({', '.join(_in_powershell(w) for w in c.words)})\n"
        for c in commands
        for name in c.names
    )
    names = ", ".join(_in_powershell(c.names[0]) for c in commands)
    return (
        "Register-ArgumentCompleter -Native -CommandName mullama -ScriptBlock {\n"
        "  param($word, $ast, $position)\n"
        f"  $options = @{{\n{cases}  }}\n"
        "  $typed = @($ast.CommandElements | ForEach-Object { $_.ToString() })\n"
        f"  $words = if ($typed.Count -le 1 -or ($typed.Count -eq 2 -and $word)) {{ @({names}) }} "
        "else { $options[$typed[1]] }\n"
        '  $words | Where-Object { $_ -like "$word*" }\n}\n'
    )


def _quoted(text: str) -> str:
    """Quote for POSIX shells and fish."""
    return "'" + text.replace("'", "'\\''") + "'"


def _in_powershell(text: str) -> str:
    """Quote for PowerShell."""
    return "'" + text.replace("'", "''") + "'"


SHELLS: dict[str, Callable[[tuple[CompletionEntry, ...]], str]] = {
    "bash": bash,
    "zsh": zsh,
    "fish": fish,
    "elvish": elvish,
    "powershell": powershell,
}

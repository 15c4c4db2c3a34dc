"""`mullama completions`: scripts that complete commands and options, generated from the parsers.

shtab is not used, because it does not support elvish.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import Literal

from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.struct import Struct

Kind = Literal["", "files", "models"]
"""The kind of values that are not listed in a parser."""

_MODEL_OPTIONS = frozenset({"--model", "--target", "--update"})
"""Options whose value is the name of a model."""
_BEFORE = ("--host", "--key-file")
"""Options with a value that may stand before the command."""

_MODELS = "mullama completions --models 2>/dev/null"
"""The command that prints the names of models, one a line."""


class OptionWord(Struct, frozen=True, kw_only=True):
    """An option as it is typed, with a short description."""

    text: str
    about: str
    values: tuple[str, ...] | None
    """The values that may follow; None for an option without a value, empty for a value that is not listed."""
    kind: Kind = ""


class CompletionEntry(Struct, frozen=True, kw_only=True):
    """One command: its name and aliases, summary, options, and the choices and kind of its arguments."""

    names: tuple[str, ...]
    about: str
    options: tuple[OptionWord, ...]
    choices: tuple[str, ...]
    kind: Kind = ""

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(option.text for option in self.options)

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that may follow the command."""
        return (*self.flags, *self.choices)


def completions_options(parser: Parser) -> None:
    parser.add_argument("shell", nargs="?", choices=tuple(SHELLS), help="the shell")
    parser.add_argument("--models", action="store_true", help=argparse.SUPPRESS)  # asked by the scripts


def completions(call: CommandContext) -> int:
    """Print the script. Where it belongs is in the manual of each shell."""
    if call.options.models:
        for name in _models(call):
            call.terminal.line(name)
    elif call.options.shell is None:
        raise UsageError("completions needs the name of a shell", hint=f"one of {', '.join(SHELLS)}")
    else:
        call.terminal.raw(SHELLS[call.options.shell](table()))
    return DONE


def _models(call: CommandContext) -> tuple[str, ...]:
    """Return the names of models and routes of the running server, else of the manifest; none after an error."""
    from mullama.cli.api_client.discover import find
    from mullama.errors import MullamaError

    found = call._replace(options=Namespace(file=None, profile=[], host=None, key_file=None))
    try:
        server = find(found)
        if server is not None:
            status = server.client.get("/api/v1/status")
            return (*(str(model["name"]) for model in status["models"]), *map(str, status["routes"]))
        from mullama.cli.models.declared import read_declared

        manifest = read_declared(found).manifest
        return (*manifest.models, *manifest.routes)
    except MullamaError:
        return ()


def table() -> tuple[CompletionEntry, ...]:
    """Return the entries of all commands; imports their modules."""
    from mullama.cli.app.commands import COMMANDS
    from mullama.cli.app.main import load

    entries = tuple(
        CompletionEntry(
            names=(command.name, *command.aliases),
            about=command.summary,
            options=_options(parser),
            choices=tuple(
                str(c) for a in parser._actions if not a.option_strings and a.choices is not None for c in a.choices
            ),
            kind=next((kind for a in parser._actions if not a.option_strings and (kind := _kind(a))), ""),
        )
        for command in COMMANDS
        for _, parser in [load(command)]
    )
    every = tuple(entry.names[0] for entry in entries)
    return (
        *entries,
        CompletionEntry(names=("help",), about="list the options of a command", options=(), choices=every),
    )


def _options(parser: argparse.ArgumentParser) -> tuple[OptionWord, ...]:
    return tuple(
        OptionWord(
            text=name,
            about=(action.help or "").split(";")[0].split("(")[0].strip(),
            values=None if action.nargs == 0 else _offered(action),
            kind=_kind(action),
        )
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for name in action.option_strings
    )


def _offered(action: argparse.Action) -> tuple[str, ...]:
    """Return the values of an option: its choices, or those that its placeholder lists, such as `on|off`."""
    placeholder = action.metavar if isinstance(action.metavar, str) else ""
    listed = placeholder.split("|") if "|" in placeholder and placeholder.islower() else ()
    return tuple(map(str, action.choices or listed))


def _kind(action: argparse.Action) -> Kind:
    """Return the kind of values that an argument takes, by its placeholder."""
    placeholder = action.metavar if isinstance(action.metavar, str) else ""
    if placeholder in ("FILE", "PATH", "DIR"):
        return "files"
    names_model = not action.option_strings or _MODEL_OPTIONS.intersection(action.option_strings)
    return "models" if placeholder in ("NAME", "MODEL", "PREFIX") and names_model else ""


def _values(option: OptionWord) -> str:
    """Return the shell code that sets `words` to the values of an option."""
    if option.kind == "models":
        return f'words="$({_MODELS})"'
    return f"words='{' '.join(option.values or ())}'"


def _value_cases(commands: tuple[CompletionEntry, ...]) -> str:
    """Return the cases `COMMAND --option` of the options with a value; a file falls through to the shell's default."""
    return "".join(
        f"    {'|'.join(_quoted(f'{name} {option.text}') for name in c.names)}) {_values(option)}; value=1 ;;\n"
        for c in commands
        for option in c.options
        if option.values is not None
    )


def bash(commands: tuple[CompletionEntry, ...]) -> str:
    flags = "".join(f"      {'|'.join(c.names)}) words='{' '.join(c.flags)}' ;;\n" for c in commands)
    arguments = "".join(
        f"      {'|'.join(c.names)}) {_arguments(c)} ;;\n" for c in commands if c.choices or c.kind == "models"
    )
    names = " ".join(c.names[0] for c in commands)
    before = " || ".join(f'"${{typed[1]}}" == {option}' for option in _BEFORE)
    return (
        "_mullama() {\n"
        "  local words='' value='' glue='' piece word previous i last\n  local -a typed=()\n"
        # Bash splits `qwen3:8b` at the colon. The parts are joined here, and the reply has the last one only.
        # It splits `--format=json` at the `=`, which is left out: the value then follows its option.
        "  for ((i = 0; i <= COMP_CWORD; i++)); do\n"
        '    piece="${COMP_WORDS[i]}"; last=$((${#typed[@]} - 1))\n'
        '    if [[ "$piece" == "=" && "${typed[last]}" == --* ]]; then [ "$i" -lt "$COMP_CWORD" ] || typed+=("")\n'
        '    elif [[ $i -gt 1 && ( "$piece" == :* || -n "$glue" ) ]]; then typed[last]+="$piece"\n'
        '    else typed+=("$piece"); fi\n'
        "    [[ \"$piece\" == *: ]] && glue=1 || glue=''\n"
        "  done\n"
        f"  while [[ ${{#typed[@]}} -gt 3 && ( {before} ) ]]; do\n"
        '    typed=("${typed[0]}" "${typed[@]:3}")\n  done\n'
        '  last=$((${#typed[@]} - 1)); word="${typed[last]}"; previous="${typed[last > 0 ? last - 1 : 0]}"\n'
        '  if [ "$last" -le 1 ]; then\n'
        f"    words='{names}'; [[ \"$word\" == -* ]] && words='--help --version {' '.join(_BEFORE)}'\n"
        "  else\n"
        '  case "${typed[1]} $previous" in\n'
        f"{_value_cases(commands)}  esac\n"
        '  if [ -z "$value" ]; then\n'
        '    if [[ "$word" == -* ]]; then case "${typed[1]}" in\n'
        f"{flags}    esac\n"
        '    else case "${typed[1]}" in\n'
        f"{arguments}    esac; fi\n"
        "  fi\n  fi\n"
        "  local IFS=$' \\t\\n'\n"
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))\n'
        '  if [[ "$word" == *:* ]]; then COMPREPLY=("${COMPREPLY[@]#"${word%:*}:"}"); fi\n'
        "}\ncomplete -o default -F _mullama mullama\n"
    )


def _arguments(command: CompletionEntry) -> str:
    """Return the shell code that sets `words` to the choices, or the models, of a command's arguments."""
    if command.kind == "models":
        return f'words="$({_MODELS})"'
    return f"words='{' '.join(command.choices)}'"


def zsh(commands: tuple[CompletionEntry, ...]) -> str:
    names = "".join(f"    {_quoted(c.names[0] + ':' + c.about)}\n" for c in commands)
    cases = "".join(f"    {'|'.join(c.names)}) offered=({' '.join(c.words)}) ;;\n" for c in commands)
    models = "|".join(name for c in commands if c.kind == "models" for name in c.names)
    return (
        "#compdef mullama\n_mullama() {\n  local -a commands offered\n  local words_of value previous\n"
        f'  while (( CURRENT > 3 )) && [[ "$words[2]" == ({"|".join(_BEFORE)}) ]]; do\n'
        "    words[2,3]=(); (( CURRENT -= 2 ))\n  done\n"
        f"  commands=(\n{names}  )\n"
        "  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
        '  previous="$words[CURRENT-1]"\n'
        """  if [[ "$PREFIX" == --*=* ]]; then previous="${PREFIX%%=*}"; compset -P 1 '*='; fi\n"""
        '  case "$words[2] $previous" in\n'
        f"{_value_cases(commands).replace('words=', 'words_of=')}  esac\n"
        '  if [[ -n "$value" ]]; then\n'
        '    if [[ -n "$words_of" ]]; then compadd -- ${=words_of}; else _files; fi\n    return\n  fi\n'
        f'  case "$words[2]" in\n{cases}  esac\n'
        f'  case "$words[2]" in {models}) [[ "$PREFIX" == -* ]] || offered=(${{(f)"$({_MODELS})"}}) ;; esac\n'
        "  compadd -- $offered; _files\n}\n"
        # Either sourced, or autoloaded from fpath at the first completion, which it must then answer itself.
        'if [[ "${funcstack[1]}" == _mullama ]]; then _mullama "$@"; else compdef _mullama mullama; fi\n'
    )


def fish(commands: tuple[CompletionEntry, ...]) -> str:
    lines = []
    for command in commands:
        lines.append(
            f"complete -c mullama -n __fish_use_subcommand -f -a {command.names[0]} -d {_quoted(command.about)}"
        )
        seen = f"'__fish_seen_subcommand_from {' '.join(command.names)}'"
        for option in command.options:
            flag = f"-l {option.text[2:]}" if option.text.startswith("--") else f"-s {option.text[1:]}"
            offered = ""
            if option.values is not None:
                values = f"({_MODELS})" if option.kind == "models" else " ".join(option.values)
                offered = " -r" if option.kind == "files" or not values else f" -x -a {_quoted(values)}"
            lines.append(f"complete -c mullama -n {seen} {flag}{offered} -d {_quoted(option.about)}")
        if command.kind == "models":
            lines.append(f"complete -c mullama -n {seen} -a {_quoted(f'({_MODELS})')}")
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

"""Parses Modelfiles and Mullamafiles. Each directive has an effect or is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Callable

from mullama.chat.families import family_names, family_with
from mullama.chat.syntax import openings
from mullama.chat.template.thinking import MARKS
from mullama.errors import Invalid, ManifestError
from mullama.manifest.modelfile.lines import Directive, directives
from mullama.manifest.modelfile.spec import (
    ABILITIES,
    BUILT_IN,
    DIRECTIVES,
    PARAMETERS,
    ROLES,
    WITHOUT_EFFECT,
    Kind,
    ModelfileSpec,
    ReadModelfile,
)
from mullama.names import Digest, JSONValue, suggest
from mullama.problems import Location, Problem
from mullama.struct import replace

_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_STYLES = ("qwen", "llama", "mistral", "generic")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_VERSION = re.compile(r"v?\d+\.\d+(\.\d+)?([-+][0-9A-Za-z.-]+)?")


def parse_modelfile(text: str, file: str = "Modelfile") -> ReadModelfile:
    """Return the parsed Modelfile; raise `ManifestError` with all mistakes, each with its line."""
    reading = _Parser(file)
    for directive in directives(text):
        reading.take(directive)
    return reading.done()


class _BadDirective(Exception):
    """A directive is wrong."""

    def __init__(self, message: str, hint: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.hint = hint
        self.line = line


class _Parser:
    """The state of parsing one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._spec = ModelfileSpec(base="")
        self._bases: list[str] = []
        self._parameters: dict[str, JSONValue] = {}
        self._problems: list[Problem] = []
        self._remarks: list[Problem] = []
        self._directive = Directive("", "", 0)

    def take(self, directive: Directive) -> None:
        """Apply one directive, or record what is wrong with it."""
        self._directive = directive
        try:
            self._take(directive.name, directive.value)
        except _BadDirective as wrong:
            self._problems.append(self._problem(str(wrong), wrong.hint, wrong.line))

    def done(self) -> ReadModelfile:
        if not self._bases:
            self._directive = Directive("FROM", None, 1)
            self._problems.append(self._problem("no FROM line", "FROM names the base model"))
        if self._problems:
            raise ManifestError(tuple(self._problems), document="the Modelfile")
        base, *others = self._bases
        spec = replace(
            self._spec,
            base=base,
            projector=others[0] if others else self._spec.projector,
            parameters=tuple(self._parameters.items()),
        )
        return ReadModelfile(spec=spec, remarks=tuple(self._remarks))

    def _take(self, name: str, value: str | None) -> None:
        word, _, inner = name.partition(" ")
        if word not in DIRECTIVES:
            close = suggest(word, DIRECTIVES)
            hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(DIRECTIVES)}"
            raise _BadDirective(f"{word[:40]!r} is not a directive", hint)
        if value is None:
            raise _BadDirective("the quote is not closed", 'end the value with " or """')
        if word == "PARAMETER":
            return self._parameter(inner, value)
        if word == "MESSAGE":
            return self._message(inner.lower(), value)
        if name == "TEMPLATE jinja":
            return self._set(jinja=value, template=None)
        if inner:
            raise _BadDirective(f"{inner[:40]!r} has no meaning after {word}")
        if not value and word not in ("SYSTEM", "TEMPLATE", "LICENSE"):
            raise _BadDirective(f"{word} needs a value")
        takers: dict[str, Callable[[str], None]] = {
            "FROM": self._from,
            "TEMPLATE": self._template,
            "CAPABILITY": self._capability,
            "GPU_LAYERS": self._layers,
            "FLASH_ATTENTION": self._flash,
            "DIGEST": self._digest,
            "THINKING": self._thinking,
            "TOOLFORMAT": self._tool_format,
            "RENDERER": self._built_in,
            "PARSER": self._built_in,
            "REQUIRES": self._version,
        }
        return takers.get(word, self._field)(value)

    def _field(self, value: str) -> None:
        """Apply a directive that sets one field."""
        match self._directive.name:
            case "SYSTEM":
                self._set(system=value)
            case "LICENSE":
                self._set(license=(*self._spec.license, value))
            case "ADAPTER":
                self._set(adapters=(*self._spec.adapters, value))
            case "DRAFT":
                self._set(draft=value)
            case "VISION_PROJECTOR" | "MMPROJ":
                self._set(projector=value)
            case _:
                self._set(author=value)

    def _set(self, **fields: object) -> None:
        self._spec = replace(self._spec, **fields)

    def _from(self, value: str) -> None:
        """Apply FROM: the second one is the projector; further parts of a split model belong to the first."""
        if self._bases and _SHARD.search(value) and _SHARD.sub("", value) == _SHARD.sub("", self._bases[0]):
            return
        if len(self._bases) == 2:
            raise _BadDirective("a model has one file, or one file and a projector", "remove this FROM")
        self._bases.append(value)

    def _parameter(self, name: str, value: str) -> None:
        known = PARAMETERS | WITHOUT_EFFECT
        if name not in known:
            close = suggest(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(sorted(PARAMETERS))}"
            raise _BadDirective(f"unknown parameter {name[:40]!r}", hint)
        typed = _typed(name, known[name], value)
        if name in WITHOUT_EFFECT:
            self._remark(f"the parameter {name} no longer has an effect")
        elif name == "stop":
            given = self._parameters.get("stop", ())
            self._parameters["stop"] = (*(given if isinstance(given, tuple) else ()), typed)
        else:
            self._parameters[name] = typed

    def _message(self, role: str, value: str) -> None:
        if role not in ROLES:
            raise _BadDirective(f"{role[:40]!r} is not a role", f"one of {', '.join(ROLES)}")
        self._set(messages=(*self._spec.messages, (role, value)))

    def _template(self, value: str) -> None:
        if value:
            from mullama.chat.template.gotemplate import compile_go

            try:
                compile_go(value)
            except Invalid as error:
                found = re.search(r"in line (\d+)", error.message)
                offset = int(found[1]) - 1 if found else 0
                raise _BadDirective(f"TEMPLATE: {error.message}", error.hint, self._directive.line + offset) from error
        self._set(template=value, jinja=None)

    def _capability(self, value: str) -> None:
        """Apply `tools` or `tools true`, which requires the capability; `false` has no effect."""
        name, *flags = value.lower().split()
        wanted = _truth(flags[0]) if flags else True
        if name not in (*ABILITIES, "json", "code"):
            raise _BadDirective(f"{name[:40]!r} is not a capability", f"one of {', '.join(ABILITIES)}")
        if name in ABILITIES and wanted:
            self._set(requires=tuple(dict.fromkeys((*self._spec.requires, name))))
        elif wanted and name == "code":
            self._remark("GGUF files have no field for the capability code")

    def _layers(self, value: str) -> None:
        layers = _typed("GPU_LAYERS", "whole", value)
        assert isinstance(layers, int)
        self._set(gpu_layers="all" if layers < 0 or layers >= 99 else layers)

    def _flash(self, value: str) -> None:
        word = value.lower()
        self._set(flash_attention="auto" if word == "auto" else "on" if _truth(word) else "off")

    def _digest(self, value: str) -> None:
        text = value.lower().replace("sha256-", "sha256:")
        try:
            digest = Digest.parse(text if text.startswith("sha256:") else f"sha256:{text}")
        except Invalid as error:
            raise _BadDirective(error.message, error.hint) from error
        self._set(digest=str(digest))

    def _thinking(self, value: str) -> None:
        """Check that the markers of reasoning are those that the template uses."""
        key, _, mark = value.partition(" ")
        mark = mark.strip().strip('"')
        if key == "enabled":
            if not _truth(mark):
                raise _BadDirective("reasoning cannot be switched off in a Modelfile", "send think: false in requests")
        elif key not in ("start", "end"):
            raise _BadDirective(f"THINKING has no {key[:40]!r}", "start, end or enabled")
        elif mark not in {text.strip() for marks in MARKS for text in (marks.open, marks.close)}:
            raise _BadDirective(
                f"{mark[:40]!r} is not a known marker of reasoning", "the model's template has the markers"
            )

    def _tool_format(self, value: str) -> None:
        """Check that the format of tool calls is one that a template can use."""
        key, _, mark = value.partition(" ")
        mark = mark.strip().strip('"')
        if key == "style":
            if mark not in _STYLES:
                raise _BadDirective(f"{mark[:40]!r} is not a style of tool calls", f"one of {', '.join(_STYLES)}")
        elif key == "call_start":
            known = {text for name in family_names() for text in openings(family_with(name).calls)}
            if mark not in known:
                raise _BadDirective(
                    f"{mark[:40]!r} does not begin a known tool call",
                    "the template determines the format",
                )
        elif key not in ("call_end", "result_start", "result_end"):
            raise _BadDirective(
                f"TOOLFORMAT has no {key[:40]!r}", "style, call_start, call_end, result_start or result_end"
            )
        self._remark(f"TOOLFORMAT {key} has no effect: the model's template determines the format")

    def _built_in(self, value: str) -> None:
        if value not in BUILT_IN:
            raise _BadDirective(f"{value[:40]!r} is not a {self._directive.name.lower()} that mullama knows")
        self._remark(f"{self._directive.name} {value} has no effect: the template in the weights file is used")

    def _version(self, value: str) -> None:
        if not _VERSION.fullmatch(value):
            raise _BadDirective(f"{value[:40]!r} is not a version", "such as 0.9.0")
        self._remark(f"REQUIRES {value} has no effect: it is a version of Ollama")

    def _remark(self, message: str) -> None:
        self._remarks.append(self._problem(message, ""))

    def _problem(self, message: str, hint: str, line: int = 0) -> Problem:
        place = Location(self._file, line or self._directive.line, 1)
        return Problem(self._directive.name, place, message, hint)


def _typed(name: str, kind: Kind, value: str) -> JSONValue:
    match kind:
        case "text":
            return value
        case "truth":
            return _truth(value)
        case "whole" if re.fullmatch(r"[+-]?\d{1,18}", value):
            return int(value)
        case "number" if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", value) and abs(float(value)) < 1e18:
            return float(value)
        case "whole":
            raise _BadDirective(f"{name} must be a whole number, not {value[:40]!r}")
        case _:
            raise _BadDirective(f"{name} must be a number, not {value[:40]!r}")


def _truth(value: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise _BadDirective(f"{value[:40]!r} is neither true nor false")

"""Chooses a file or a split set of a repository: by name, by quantisation, or by the order of preference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mullama.errors import Invalid, NotFound, Unsupported
from mullama.names import suggest
from mullama.weights.split import split_name, stem

PREFERENCE: Final = (
    "Q4_K_M", "Q4_K_S", "Q5_K_M", "Q4_0", "Q8_0", "F16", "Q5_K_S", "Q6_K", "IQ4_XS", "IQ4_NL", "Q4_1", "Q5_0",
    "Q5_1", "MXFP4_MOE", "MXFP4", "Q4_K_L", "Q5_K_L", "Q6_K_L", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S",
    "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_L", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "BF16", "F32",
    "TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S",
)  # fmt: skip
"""The order of preference for a source without a quantisation: balanced ones first, then the rest."""

SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "q2": ("Q2_K", "IQ2_M", "IQ2_S"),
    "q3": ("Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S"),
    "q4": ("Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_NL", "IQ4_XS"),
    "q5": ("Q5_K_M", "Q5_K_S", "Q5_0"),
    "q6": ("Q6_K",),
    "q8": ("Q8_0",),
    "f16": ("F16",),
    "bf16": ("BF16",),
    "f32": ("F32",),
}
"""The quantisations for the suffixes of short names such as `llama3.2:1b-q8`, best first."""

_QUANT: Final = re.compile(
    r"(?<![0-9A-Za-z])(?:UD-)?((?:IQ|Q|TQ)[1-8](?:_[0-9A-Z]+)*|BF16|F16|FP16|F32|FP32|MXFP4(?:_MOE)?)(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_SPELLED: Final = {"FP16": "F16", "FP32": "F32"}
_OTHER_FORMATS: Final = {".safetensors": "safetensors", ".bin": "PyTorch", ".pt": "PyTorch", ".pth": "PyTorch",
                         ".onnx": "ONNX", ".npz": "MLX"}  # fmt: skip

Role = Literal["weights", "projector", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChoice:
    """The files of one set of weights."""

    files: tuple[str, ...]
    """The names of all parts, in order."""
    quant: str
    """The quantisation in the name, "" for none."""


def role(name: str) -> Role:
    """Return the role of a file of a repository, by its name."""
    base = name.rsplit("/", 1)[-1].lower()
    if not base.endswith(".gguf"):
        return "other"
    if "mmproj" in base:
        return "projector"
    return "other" if "imatrix" in base else "weights"


def quant_of(name: str) -> str:
    """Return the last quantisation in a file name, in upper case; "" for none."""
    found = _QUANT.findall(stem(name.rsplit("/", 1)[-1]))
    if not found:
        found = _QUANT.findall(name.rsplit("/", 1)[0]) if "/" in name else []
    return _SPELLED.get(found[-1].upper(), found[-1].upper()) if found else ""


def choose(files: Iterable[str], *, repo: str, file: str | None = None, quants: tuple[str, ...] = ()) -> FileChoice:
    """Return the set of weights to use out of the files of a repository.

    file: the name of a file, or of a part of the set, in any case. quants: the preferred quantisations, best first.

    Raises `NotFound` with the files or quantisations that there are, `Unsupported` for a repository without GGUF files.
    """
    names = tuple(files)
    if file is not None:
        return _named(names, repo, file)
    offers = _offers(names)
    if not offers:
        raise _nothing(names, repo)
    wanted = tuple(quant.upper().removeprefix("UD-") for quant in quants)
    for quant in wanted or PREFERENCE:
        fitting = [choice for choice in offers if choice.quant == quant]
        if fitting:
            return min(fitting, key=lambda choice: (choice.files[0].count("/"), len(choice.files[0])))
    if wanted:
        raise NotFound(
            f"{repo} has no {' or '.join(wanted)} file", hint=_offered(offers), name=wanted[0],
            near=suggest(wanted[0], {choice.quant for choice in offers}),
        )  # fmt: skip
    return offers[0]


def choose_projector(files: Iterable[str], *, repo: str, file: str | None = None) -> str:
    """Return the vision or audio projector: the named one, else F16, else BF16, else the first."""
    names = tuple(files)
    if file is not None:
        return _named(names, repo, file).files[0]
    projectors = sorted(name for name in names if role(name) == "projector")
    if not projectors:
        raise NotFound(f"{repo} has no mmproj file", hint="name the projector's file", name=repo)
    order = {"F16": 0, "BF16": 1, "Q8_0": 2}
    return min(projectors, key=lambda name: order.get(quant_of(name), 3))


def _named(names: tuple[str, ...], repo: str, file: str) -> FileChoice:
    by_key = {name.casefold(): name for name in names}
    if file.casefold() not in by_key:
        by_base = {name.rsplit("/", 1)[-1].casefold(): name for name in names if "/" in name}
        by_key = {**by_base, **by_key}
    wanted = by_key.get(file.casefold())
    if wanted is None:
        ggufs = [name for name in names if name.lower().endswith(".gguf")]
        raise NotFound(
            f"{repo} has no file {file!r}", name=file, near=suggest(file, ggufs),
            hint=f"it has {_listed(sorted(ggufs))}" if ggufs else _nothing(names, repo).message,
        )  # fmt: skip
    if not wanted.lower().endswith(".gguf"):
        raise Unsupported(f"{wanted} of {repo} is not a GGUF file", hint="only GGUF files can be run")
    return FileChoice(files=_whole_set(wanted, by_key, repo), quant=quant_of(wanted))


def _whole_set(name: str, by_key: Mapping[str, str], repo: str) -> tuple[str, ...]:
    parts = split_name(name)
    missing = [part for part in parts if part.casefold() not in by_key]
    if missing:
        raise NotFound(f"{repo} lacks {missing[0]!r}, a part of the set of {len(parts)}", name=missing[0])
    return tuple(by_key[part.casefold()] for part in parts)


def _offers(names: tuple[str, ...]) -> list[FileChoice]:
    """Return every complete set of weights in the order of names."""
    by_key = {name.casefold(): name for name in names}
    offers: dict[tuple[str, ...], FileChoice] = {}
    for name in sorted(names):
        if role(name) != "weights":
            continue
        try:
            files = _whole_set(name, by_key, "")
        except (NotFound, Invalid):
            continue  # a part is missing, or its number is beyond the count; only a source that names it gets an error
        offers.setdefault(files, FileChoice(files=files, quant=quant_of(name)))
    return list(offers.values())


def _nothing(names: tuple[str, ...], repo: str) -> Unsupported | NotFound:
    if others := _other_formats(names, repo):
        return Unsupported(
            f"{repo} holds no GGUF file but {others}, which llama.cpp cannot run",
            hint="look for a GGUF conversion of the same model",
        )
    return NotFound(f"{repo} holds no file that can be run", hint="only GGUF files can be run", name=repo)


def _other_formats(names: tuple[str, ...], repo: str) -> str:
    """Return the other formats of a repository in words, "" for none."""
    formats = sorted({kind for end, kind in _OTHER_FORMATS.items() for name in names if name.lower().endswith(end)})
    quantised = [word for word in ("awq", "gptq") if any(word in name.lower() for name in (*names, repo))]
    return " and ".join((*formats, *(word.upper() for word in quantised))) if formats else ""


def _offered(offers: list[FileChoice]) -> str:
    quants = sorted({choice.quant for choice in offers if choice.quant})
    return f"it has {_listed(quants)}" if quants else f"it has {_listed([c.files[0] for c in offers])}"


def _listed(words: list[str]) -> str:
    shown = ", ".join(words[:20])
    return f"{shown} and {len(words) - 20} more" if len(words) > 20 else shown

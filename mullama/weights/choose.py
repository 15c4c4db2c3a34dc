"""Chooses a file or a split set of a repository: by name, by quantisation, or by the order of preference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from mullama.errors import Invalid, NotFound, Unsupported
from mullama.names import suggest
from mullama.struct import Struct
from mullama.weights.architectures import DRAFTERS, PROJECTOR, VOCODERS
from mullama.weights.split import split_name, stem

PREFERENCE: Final = (
    "Q4_K_M", "Q4_K_S", "Q4_K", "Q4_K_L", "Q4_K_XL", "Q5_K_M", "Q4_0", "Q4", "Q8_0", "Q5_K_S", "Q5_K", "Q5_K_L",
    "Q5_K_XL", "Q6_K", "Q6_K_L", "Q6_K_XL", "IQ4_XS", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q5", "Q6", "Q8", "Q8_K_XL",
    "MXFP4_MOE", "MXFP4", "NVFP4", "F16", "Q3_K_XL", "Q3_K_L", "Q3_K_M", "Q3_K", "Q3_K_S", "Q3", "IQ3_M", "IQ3_S",
    "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_L", "Q2_K_XL", "Q2_K_S", "Q2", "Q2_0", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS",
    "BF16", "F32", "TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S", "Q1_0",
)  # fmt: skip
"""The order of preference for a source without a quantisation: balanced ones first, then the rest."""

_FOREIGN_TYPES: Final = (
    "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "Q8_1", "Q8_K", "Q8_KV", "Q6_0", "IQ2_K", "IQ3_K", "IQ4_K", "IQ5_K", "IQ6_K",
    "IQ2_KS", "IQ3_KS", "IQ4_KS", "IQ5_KS", "IQ2_KL", "IQ4_KSS", "IQ1_KT", "IQ2_KT", "IQ3_KT", "IQ4_KT",
)  # fmt: skip
"""Types of forks and of earlier versions, which llama.cpp does not load: used last."""
_RANK: Final = {quant: rank for rank, quant in enumerate((*PREFERENCE, *_FOREIGN_TYPES))}

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
    r"(?<![0-9A-Za-z])(UD-)?((?:IQ|Q|TQ)[1-8](?:_[0-9A-Z]+)*|BF16|F16|FP16|F32|FP32|MXFP4(?:_MOE)?|NVFP4)"
    r"(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_SPELLED: Final = {"FP16": "F16", "FP32": "F32"}
_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    **{name.upper(): quants for name, quants in SUFFIXES.items()},
    "Q2_K": ("Q2_K",), "Q3_K": ("Q3_K_M", "Q3_K_L", "Q3_K_S"), "Q4_K": ("Q4_K_M", "Q4_K_S", "Q4_K_L"),
    "Q5_K": ("Q5_K_M", "Q5_K_S", "Q5_K_L"), "MXFP4": ("MXFP4_MOE",), "MXFP4_MOE": ("MXFP4",),
}  # fmt: skip
"""Other quantisations for a requested name of a family of them, best first."""
_OTHER_FORMATS: Final = {".safetensors": "safetensors", ".bin": "PyTorch", ".pt": "PyTorch", ".pth": "PyTorch",
                         ".onnx": "ONNX", ".npz": "MLX"}  # fmt: skip

Role = Literal["weights", "projector", "other"]
_PROJECTOR: Final = ("mmproj", "mm-proj", "mm_proj")
_COMPANIONS: Final[Mapping[str, frozenset[str]]] = {
    "drafter": frozenset(("draft", "drafter", "mtp", "nextn", "eagle", "eagle2", "eagle3", "dflash", "medusa",
                          "speculator", "speculative")),
    "adapter": frozenset(("lora", "qlora", "adapter", "adapters")),
    "projector": frozenset(("projector",)),
    "vocoder": frozenset(("vocoder", "wavtokenizer", "snac", "mimi", "hifigan", "codec", "tokenizer")),
    "encoder": frozenset(("encoder", "vae", "t5xxl", "clip")),
    "embeddings": frozenset(("embeddings",)),
    "control vector": frozenset(("cvector", "control")),
    "vocabulary": frozenset(("vocab", "vocabulary")),
}  # fmt: skip
"""Words in the names of files and folders that go with a model, by the role of the file."""


class FileChoice(Struct, frozen=True, kw_only=True):
    """The files of one set of weights."""

    files: tuple[str, ...]
    """The names of all parts, in order."""
    quant: str
    """The quantisation in the name, "" for none."""


def role(name: str) -> Role:
    """Return the role of a file of a repository, by its name and folder."""
    base = name.rsplit("/", 1)[-1].lower()
    if not base.endswith(".gguf"):
        return "other"
    if any(word in name.lower() for word in _PROJECTOR):
        return "projector"
    # A quantisation that was made with an importance matrix may say so in its name.
    return "other" if "imatrix" in base and not quant_of(base) else "weights"


def companion(name: str, repo: str) -> str:
    """Return the role of a file that goes with the model of a repository, by name and folder; "" for the model's own.

    A word that the name of the repository has, too, is part of the model's name.
    """
    words = _words(name) - _words(repo.rsplit("/", 1)[-1])
    return next((kind for kind, marks in _COMPANIONS.items() if words & marks), "")


def header_role(architecture: str, kind: str, tensors: int) -> str:
    """Return the role of a file by its header: "weights", or the word for another one.

    kind: `general.type`. tensors: the number of tensors.
    """
    if architecture == PROJECTOR or kind == "mmproj":
        return "projector"
    if kind != "model":
        return kind
    if architecture in DRAFTERS:
        return "drafter"
    if architecture in VOCODERS:
        return "vocoder"
    return "weights" if tensors else "vocabulary"


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", re.sub(r"\.gguf$", "", name.lower())))


def quant_of(name: str) -> str:
    """Return the last quantisation in a file name, in upper case; "" for none."""
    return _spelled_quant(name).removeprefix("UD-")


def _spelled_quant(name: str) -> str:
    """Return the last quantisation in a file name with the mark `UD-` of a dynamic one."""
    found = _QUANT.findall(stem(name.rsplit("/", 1)[-1]))
    if not found:
        found = _QUANT.findall(name.rsplit("/", 1)[0]) if "/" in name else []
    return _known_quant(*found[-1]) if found else ""


def _known_quant(dynamic: str, text: str) -> str:
    """Return a quantisation in its usual spelling, without words that follow it, as in `Q4_K_M_v2`."""
    quant = _SPELLED.get(text.upper(), text.upper())
    parts = quant.split("_")
    starts = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
    return dynamic.upper() + next((start for start in starts if start in _RANK), quant)


def choose(
    files: Iterable[str], *, repo: str, file: str | None = None, quants: tuple[str, ...] = (),
    by_header: Mapping[str, str] | None = None, complete: bool = True,
) -> FileChoice:  # fmt: skip
    """Return the set of weights to use out of the files of a repository.

    file: the name of a file, or of a part of the set, in any case. quants: the preferred quantisations, best first;
    each may be any word of a file name. by_header: the roles of files by their headers, see `header_role`.
    complete: False for a part of the files of the repository, as in a cache.

    Raises `NotFound` with the files or quantisations that there are, `Unsupported` for a repository without GGUF files,
    `Invalid` with the files that fit equally well.
    """
    names = tuple(files)
    if file is not None:
        return _named(names, repo, file)
    every = sets_of(names)
    offers = models_of(every, repo, by_header or {}, complete=complete)
    if not offers:
        raise _nothing(names, repo)
    if not quants:
        best = min(map(_rank, offers))
        return _only([offer for offer in offers if _rank(offer) == best], repo)
    for fits in (_exactly, _by_family, _by_word):
        for quant in quants:
            named = fits is _by_word and companion(quant, repo)  # the request names a file that goes with a model
            found = [offer for offer in (every if named else offers) if fits(offer, quant.upper())]
            if fits is _by_family and found:
                first = min(_family_rank(offer, quant.upper()) for offer in found)
                found = [offer for offer in found if _family_rank(offer, quant.upper()) == first]
            if found:
                return _only(found, repo)
    wanted = [quant.upper() for quant in quants]
    raise NotFound(
        f"{repo} has no {' or '.join(wanted)} file", hint=_offered(offers), name=wanted[0],
        near=suggest(wanted[0], {_spelled_quant(choice.files[0]) for choice in offers}),
    )  # fmt: skip


def models_of(
    offers: Iterable[FileChoice], repo: str, by_header: Mapping[str, str], *, complete: bool = True
) -> list[FileChoice]:
    """Return the sets that are models: all others go with one. Where nothing else is there, they are the models."""
    known = [offer for offer in offers if by_header.get(offer.files[0], "weights") == "weights"]
    plain = [offer for offer in known if not companion(offer.files[0], repo)]
    return plain if plain or not complete else known


def _rank(offer: FileChoice) -> tuple[int, bool]:
    quant = _spelled_quant(offer.files[0])
    return _RANK.get(quant.removeprefix("UD-"), len(_RANK)), quant.startswith("UD-")


def _exactly(offer: FileChoice, wanted: str) -> bool:
    return _spelled_quant(offer.files[0]) == _SPELLED.get(wanted, wanted)


def _by_family(offer: FileChoice, wanted: str) -> bool:
    return offer.quant in _family(wanted)


def _family(wanted: str) -> tuple[str, ...]:
    """Return the quantisations that may stand in for a requested one, best first; none for a dynamic one (`UD-`)."""
    plain = _SPELLED.get(wanted, wanted)
    return (plain, *_FAMILIES.get(plain, ()))


def _family_rank(offer: FileChoice, wanted: str) -> tuple[bool, int]:
    return _spelled_quant(offer.files[0]).startswith("UD-"), _family(wanted).index(offer.quant)


def _by_word(offer: FileChoice, wanted: str) -> bool:
    word = rf"(?<![0-9A-Z]){re.escape(wanted)}(?![0-9A-Z])"
    return bool(wanted) and re.search(word, offer.files[0].upper().removesuffix(".GGUF")) is not None


def _only(offers: list[FileChoice], repo: str) -> FileChoice:
    """Return the one of several sets that is nearest to the top, or is not split; raise `Invalid` for a tie."""
    depth = min(offer.files[0].count("/") for offer in offers)
    nearest = [offer for offer in offers if offer.files[0].count("/") == depth]
    if len({stem(offer.files[0]).casefold() for offer in nearest}) == 1:
        return min(nearest, key=lambda offer: len(offer.files))
    if len(nearest) > 1:
        raise Invalid(
            f"{repo} has {len(nearest)} files that fit equally well", hint=f"name one: {_listed(_firsts(nearest))}"
        )
    return nearest[0]


def _firsts(offers: list[FileChoice]) -> list[str]:
    return [offer.files[0] for offer in offers]


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


def projector_beside(weights: str, files: Iterable[str]) -> str | None:
    """Return the projector of weights in the same folder, None for none.

    In a folder with several models only a projector with the name of the model is taken.
    """
    names = tuple(name for name in files if role(name) != "other")
    projectors = [name for name in names if role(name) == "projector"]
    if not projectors or role(weights) == "projector":
        return None
    mine = _model_words(weights)
    if {_model_words(name) for name in names if role(name) == "weights"} - {mine}:
        projectors = [name for name in projectors if mine and _model_words(name) == mine]
    return choose_projector(projectors, repo="") if projectors else None


def _model_words(name: str) -> str:
    """Return the name of the model in the name of a file: without its folder, ending, part, quantisation and role."""
    text = _QUANT.sub("", stem(name.rsplit("/", 1)[-1]))
    for word in (*_PROJECTOR, ".gguf"):
        text = re.sub(re.escape(word), "", text, flags=re.IGNORECASE)
    return "-".join(word for word in re.split(r"[-_. ]+", text.lower()) if word not in ("", "model"))


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


def sets_of(names: tuple[str, ...]) -> list[FileChoice]:
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
    quants = sorted({_spelled_quant(choice.files[0]) for choice in offers} - {""})
    return f"it has {_listed(quants)}" if quants else f"it has {_listed([c.files[0] for c in offers])}"


def _listed(words: list[str]) -> str:
    shown = ", ".join(words[:20])
    return f"{shown} and {len(words) - 20} more" if len(words) > 20 else shown

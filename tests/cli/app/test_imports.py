"""The modules that a start imports: they are most of the time of a command, and unlike time they can be counted."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mullama import __version__
from tests.cli.tinyserver import Answer, TinyServer

HEAVY = {"pydantic", "msgspec", "dataclasses", "rich", "yaml", "starlette", "jinja2", "llama_cpp", "asyncio"}

MODEL: dict[str, Any] = {
    "name": "tiny", "state": "ready", "digest": "sha256:00", "size": 1, "quantization": "Q8_0", "modified": 1.0,
    "source": "builtin:tiny", "family": "llama", "parameter_size": "1M", "context_size": 64, "train_context": 64,
    "embedding_length": 1, "capabilities": [], "vocab_size": 1, "settings": {}, "system": "",
    "template": "", "template_source": "",
    "license": "", "modelfile": "FROM builtin:tiny", "metadata": {},
}  # fmt: skip


def modules_of(program: str) -> tuple[str, set[str]]:
    """Return the output of a program and the modules that it imported."""
    report = "\nimport sys\nprint(' '.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=True)
    return done.stdout, set(done.stderr.split())


def test_the_version_is_printed_before_other_imports() -> None:
    program = "import sys\nfrom mullama.__main__ import main\nsys.argv = ['mullama', '--version']\nmain()"
    out, modules = modules_of(program)
    assert out == f"mullama {__version__}\n"
    assert {name for name in modules if name.startswith("mullama")} == {"mullama", "mullama.__main__"}


def test_help_imports_nothing_heavy() -> None:
    program = "from mullama.cli.app.main import main\nassert main([]) == 0"
    out, modules = modules_of(program)
    assert "Manifest:" in out
    assert not (HEAVY | {"http.client", "inspect"}) & modules


@pytest.mark.parametrize("command", [["list"], ["ps"], ["show", "tiny"]], ids=lambda command: str(command[0]))
def test_a_question_to_a_server_imports_only_its_client(command: list[str], tiny: TinyServer) -> None:
    tiny.answers["GET /api/models"] = Answer({"models": [MODEL]})
    tiny.answers["GET /api/models/tiny"] = Answer(MODEL)
    tiny.answers["GET /api/v1/status"] = Answer({"models": [{**MODEL, "memory": 1}]})
    arguments = [*command, "--host", tiny.url]
    program = f"from mullama.cli.app.main import main\nassert main({arguments!r}) == 0"
    out, modules = modules_of(program)
    assert "tiny" in out
    unneeded = {"inspect", "encodings.idna", "mullama.manifest", "mullama.names", "mullama.plan", "mullama.runtime"}
    assert not (HEAVY | unneeded) & modules


def test_a_question_to_a_server_that_does_not_run_loads_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "mullama.yaml").write_text("mullama: v1 # a server applies it\nmodels: {a: builtin:tiny}\n")
    program = f"import os\nos.chdir({str(tmp_path)!r})\nos.environ['MULLAMA_STATE_DIR'] = {str(tmp_path)!r}\n"
    program += "from mullama.cli.app.main import main\nassert main(['ps']) in (10, 11)"
    _, modules = modules_of(program)
    assert not (HEAVY | {"mullama.manifest", "encodings.idna"}) & modules


def test_a_diff_reads_the_manifest_by_the_core_of_pydantic(tmp_path: Path) -> None:
    manifest = "mullama: v1\nserver: {listen: ['127.0.0.1:1']}\nmodels: {a: builtin:tiny}\n"  # where nothing listens
    (tmp_path / "mullama.yaml").write_text(manifest)
    program = f"import os, sys\nfrom mullama.__main__ import main\nos.chdir({str(tmp_path)!r})\n"
    program += (
        f"os.environ['MULLAMA_STATE_DIR'] = {str(tmp_path)!r}\nsys.argv = ['mullama', 'diff']\nassert main() == 2"
    )
    out, modules = modules_of(program)
    assert "1 added" in out
    assert not {"platform", "yaml.loader", "importlib.metadata", "mullama.engines.base"} & modules
    assert not {"pydantic", "email", "concurrent.futures", "asyncio", "rich"} & modules


def test_a_server_starts_without_what_only_some_requests_need() -> None:
    program = (
        "import dataclasses, sys\n"
        "import mullama.cli.server.wiring\n"
        "own = [m for name, m in sys.modules.items() if name.startswith('mullama.')]\n"
        "print(len({v for m in own for v in vars(m).values() if isinstance(v, type) and v.__module__ == m.__name__\n"
        "           and dataclasses.is_dataclass(v)}))"
    )
    out, modules = modules_of(program)
    late = {
        "pydantic",
        "httpx2",
        "httpcore2",
        "jinja2",
        "prometheus_client",
        "click",
        "starlette",
        "uvicorn.config",
        "logging.config",
        "http.server",
        "http.client",
    }
    late |= {
        "pydantic",
        "backports.zstd",
        "jsonschema",
        "huggingface_hub",
        "numpy",
        "llama_cpp",
        "mullama.chat.template.gotemplate",
    }
    assert not late & modules
    assert int(out) <= 10, "values are structs: a dataclass takes thirty times as long to define"
    assert len(modules) < 720


def test_a_worker_starts_without_the_classes_of_its_binding() -> None:
    pytest.importorskip("llama_cpp")
    program = "import mullama.runtime.worker.child\nfrom mullama.engines import find_engine\nfind_engine('llamacpp')"
    _, modules = modules_of(program)
    assert "llama_cpp.llama_cpp" in modules
    assert not {"numpy._core._add_newdocs", "numpy._typing", "typing_extensions"} & modules
    assert not {"llama_cpp.llama", "jinja2", "asyncio", "llguidance", "pydantic", "yaml", "diskcache"} & modules

"""Remote files of `include`: what they may contain, and the places of their mistakes."""

from __future__ import annotations

import pytest

from mullama.errors import Invalid, ManifestError, NotFound
from mullama.manifest.load import LoadedManifest, load_text
from mullama.manifest.load.remote import parse_spec
from mullama.manifest.spec import Sources
from tests.manifest.builders import BASE, MemoryFiles

SPEC = "hf:acme/presets/coder.yaml@v3"
MAIN = f"mullama: v1\ninclude: ['{SPEC}']\n"


class Remote:
    """Files by their spec; it keeps the settings and the lock file with which it was asked."""

    def __init__(self, **files: str) -> None:
        self.files = {SPEC: files.get("coder", "models: {coder: builtin:tiny}\n")}
        self.asked: list[tuple[Sources, bytes | None]] = []

    def read(self, spec: str, sources: Sources, lock: bytes | None) -> bytes:
        self.asked.append((sources, lock))
        if spec not in self.files:
            raise NotFound(f"{spec} is not pinned", hint="pin it")
        return self.files[spec].encode()


def loaded(text: str, remote: Remote | None, **files: str) -> LoadedManifest:
    env = {"HOME": "/home/me", "TOKEN": "s3cr3t", "HUB": "https://hub.example.org"}
    memory = MemoryFiles({"mullama.lock": "LOCK", **files})
    return load_text(text, name="m.yaml", base_dir=BASE, env=env, files=memory, remote=remote)


def problems(text: str, remote: Remote | None) -> list[str]:
    with pytest.raises(ManifestError) as raised:
        loaded(text, remote)
    return [str(problem) for problem in raised.value.problems]


def test_a_remote_file_adds_its_models_and_has_places() -> None:
    remote = Remote(coder="mullama: v1\nx-note: hi\nmodels:\n  coder: hf:org/m:Q8_0\nroutes: {fast: coder}\n")
    hub = "sources: {hf: {endpoint: '${HUB}', token: {from_file: ./t}}}\n"
    found = loaded(f"{MAIN}{hub}models: {{a: {{like: coder}}}}\n", remote)

    assert {name: model.from_ for name, model in found.manifest.models.items()} == {
        "a": "hf:org/m:Q8_0",
        "coder": "hf:org/m:Q8_0",
    }
    assert str(found.places["models.coder"]) == f"{SPEC}:4:3"
    assert (found.manifest.routes, found.remote) == ({"fast": "coder"}, (SPEC,))
    ((sources, lock),) = remote.asked
    assert (sources.hf.endpoint, lock) == ("https://hub.example.org", b"LOCK")
    assert sources.hf.token is not None
    assert sources.hf.token.from_file == f"{BASE}/t"
    assert all(file.path.startswith("/") for file in found.files), "only files of this machine are watched"


def test_another_content_is_another_digest_of_the_manifest() -> None:
    one, other = (loaded(MAIN, Remote(coder=f"models: {{coder: builtin:tiny}}{end}")) for end in ("", " # x"))
    assert one.digest != other.digest
    assert one.manifest == other.manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("auth: {keys: {k: {secret: {from_env: K}}}}", "1:1: auth: a remote file cannot contain this key"),
        ("sources: {hf: {endpoint: https://x.example.org}}", "1:1: sources: a remote file cannot contain this key"),
        ("include: [a.yaml]", "1:1: include: a remote file cannot contain this key"),
        ("server: {ui: true}", "1:1: server: a remote file cannot contain this key"),
        ("models: {c: ./c.gguf}", "1:13: models.c.from: ./c.gguf is a file of this machine, which a remote file"),
        ("models: {c: /etc/passwd}", "1:13: models.c.from: /etc/passwd is a file of this machine"),
        ("models: {c: ~/c.gguf}", "1:13: models.c.from: ~/c.gguf is a file of this machine"),
        (
            "models: {c: {from: builtin:tiny, adapters: [{from: ./a.gguf}]}}",
            "1:52: models.c.adapters[0].from: ./a.gguf is a file of this machine",
        ),
        (
            "models: {c: {from: builtin:tiny, draft: {from: ./d.gguf}}}",
            "1:48: models.c.draft.from: ./d.gguf is a file of this machine",
        ),
        (
            "models: {c: {from: builtin:tiny, template: {file: t.jinja}}}",
            "1:51: models.c.template.file: t.jinja is a file of this machine",
        ),
        (
            "models: {c: 'https://x.example.org/${TOKEN}.gguf'}",
            "1:13: models.c: a remote file cannot use environment variables",
        ),
        (
            "models: {c: 'https://x.example.org/c.gguf?t=from_env:TOKEN'}",
            "1:13: models.c: a remote file cannot name secrets",
        ),
        ("moved: [{from: k, to: l, kind: key}]", "1:32: moved[0].kind: a remote file cannot rename API keys"),
        ("models: {c: {form: x}}", "1:14: models.c.form: no such field"),
        ("models: [", "1:9: this bracket is not closed"),
    ],
)
def test_a_remote_file_is_trusted_with_nothing_of_this_machine(text: str, message: str) -> None:
    found = problems(MAIN, Remote(coder=f"{text}\n"))

    assert any(line.startswith(f"{SPEC}:{message}") for line in found), found
    assert "s3cr3t" not in "".join(found)


def test_an_escaped_dollar_is_no_variable() -> None:
    remote = Remote(coder="models: {coder: {from: builtin:tiny, system: '$${TOKEN}'}}\n")
    assert loaded(MAIN, remote).manifest.models["coder"].system == "${TOKEN}"


def test_a_file_that_cannot_be_read_is_named_at_its_line() -> None:
    text = "mullama: v1\ninclude:\n  - hf:acme/presets/other.yaml\nmodels: {}\n"
    assert problems(text, Remote()) == ["m.yaml:3:5: include: hf:acme/presets/other.yaml is not pinned (pin it)"]
    assert "is a remote file, which only the manifest of a server can include" in problems(text, None)[0]
    text = text.replace("other.yaml", "other.gguf")
    assert problems(text, Remote())[0].startswith(
        "m.yaml:3:5: include: 'hf:acme/presets/other.gguf' names no YAML file"
    )


@pytest.mark.parametrize(
    ("spec", "file", "revision"),
    [
        ("hf:acme/presets/coder.yaml", "coder.yaml", None),
        ("hf:acme/presets/a/b.yml@v1.2", "a/b.yml", "v1.2"),
        ("hf:acme/presets/../x.yaml", None, None),
        ("hf:acme/coder.yaml", None, None),
        ("hf:acme/presets/coder.yaml@", None, None),
        ("hf:acme/presets/coder.yaml@a..b", None, None),
        ("hf:acme/presets/coder.yaml@a@b", None, None),
    ],
)
def test_a_spec_names_a_yaml_file_of_a_repository(spec: str, file: str | None, revision: str | None) -> None:
    if file is None:
        with pytest.raises(Invalid):
            parse_spec(spec)
    else:
        ref = parse_spec(spec)
        assert (ref.repo, ref.file, ref.revision) == ("acme/presets", file, revision)

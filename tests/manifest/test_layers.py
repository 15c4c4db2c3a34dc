"""Defaults, hardware profiles, `like`, profiles and included files, and how they lie over each other."""

from __future__ import annotations

import pytest

from mullama.manifest.spec import Model
from tests.manifest.builders import MemoryFiles, one, problems, read


def models(text: str, **options: object) -> dict[str, Model]:
    return read(text, **options).manifest.models  # type: ignore[arg-type]


def test_defaults_lie_under_every_model_maps_merge_and_lists_replace() -> None:
    found = models("""
defaults:
  context: {size: 8192, kv: {k: q8_0, v: q8_0}}
  parameters: {temperature: 0.7, stop: [x, y]}
models:
  a: builtin:tiny
  b: {from: builtin:tiny, context: {kv: {v: f16}}, parameters: {stop: [z]}}
""")
    assert (found["a"].context.size, found["a"].context.kv.v) == (8192, "q8_0")
    assert (found["b"].context.size, found["b"].context.kv.k, found["b"].context.kv.v) == (8192, "q8_0", "f16")
    assert (found["b"].parameters.temperature, found["b"].parameters.stop) == (0.7, ("z",))


def test_null_removes_what_a_lower_layer_says() -> None:
    a = one(
        "defaults: {residency: {ttl: 5m}, context: {size: 9}}\n"
        "models: {a: {from: x.gguf, residency: {ttl: null}, context: null}}"
    )
    assert a.residency.ttl is None
    assert a.context.size is None


def test_a_template_replaces_the_one_below_it_whole() -> None:
    a = one("defaults: {template: {go: '{{ .Prompt }}'}}\nmodels: {a: {from: builtin:tiny, template: '{{ x }}'}}")
    assert a.template is not None
    assert (a.template.text, a.template.syntax, a.template.go) == ("{{ x }}", "jinja", None)


def test_like_takes_over_everything_but_what_is_said() -> None:
    found = models("""
defaults: {context: {size: 8}, parameters: {seed: 1}}
models:
  a: {from: builtin:tiny, system: hi, context: {size: 16}, parameters: {seed: null}, gpu: {layers: 3}}
  b: {like: a, context: {size: 32}, system: null}
""")
    b = found["b"]
    assert (b.from_, b.context.size, b.system, b.parameters.seed, b.gpu.layers) == ("builtin:tiny", 32, None, None, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{a: builtin:tiny, b: {like: a}, c: {like: b}}",
            "m.yaml:2:51: models.c.like: b itself has `like` (`like` has one level: name the other model directly)",
        ),
        ("{a: {like: a}}", "m.yaml:2:20: models.a.like: a itself has `like`"),
        ("{chat: builtin:tiny, b: {like: caht}}", "there is no model 'caht' (did you mean chat?)"),
        ("{b: {like: [a]}}", "models.b.like: expected the name of a model"),
    ],
)
def test_like_has_one_level_and_its_model_exists(text: str, expected: str) -> None:
    (said,) = problems(f"models: {text}")
    assert expected in said


HARDWARE = "hardware: {profiles: {cpu: {gpu: {layers: 0}, context: {threads: 8}}, gpu: {gpu: {layers: all}}}}\n"


@pytest.mark.parametrize(
    ("defaults", "model", "layers", "threads"),
    [
        ("", "hardware: cpu", 0, 8),
        ("", "hardware: cpu, gpu: {layers: 5}", 5, 8),
        ("hardware: cpu", "", 0, 8),
        ("hardware: cpu, gpu: {layers: 7}", "", 7, 8),
        ("hardware: cpu", "gpu: {layers: 5}", 5, 8),
        ("gpu: {layers: 7}", "hardware: cpu", 0, 8),
        ("hardware: cpu", "hardware: gpu", "all", None),
        ("hardware: cpu", "hardware: null", "auto", None),
        ("hardware: cpu, gpu: {layers: 7}", "hardware: gpu", "all", None),
    ],
)
def test_a_hardware_profile_lies_under_the_layer_that_names_it(
    defaults: str, model: str, layers: object, threads: int | None
) -> None:
    a = one(f"{HARDWARE}defaults: {{{defaults}}}\nmodels: {{a: {{from: builtin:tiny, {model}}}}}")
    assert (a.gpu.layers, a.context.threads) == (layers, threads)


def test_a_model_like_another_takes_over_its_hardware_too() -> None:
    found = models(HARDWARE + "models: {a: {from: builtin:tiny, hardware: cpu}, b: {like: a, context: {threads: 2}}}")
    assert (found["b"].gpu.layers, found["b"].context.threads) == (0, 2)


def test_a_hardware_profile_that_does_not_exist_is_named() -> None:
    (said,) = problems(HARDWARE + "models: {a: {from: builtin:tiny, hardware: cpus}}")
    assert said == "m.yaml:3:44: models.a.hardware: there is no hardware profile 'cpus' (did you mean cpu?)"


@pytest.mark.parametrize("key", ["from: builtin:tiny", "like: a", "digest: x"])
def test_what_names_one_model_cannot_be_a_default(key: str) -> None:
    said = problems(f"defaults: {{{key}}}\nmodels: {{a: builtin:tiny}}")
    assert "this key cannot be a default" in said[0]


def test_a_mistake_in_defaults_is_said_once_and_of_defaults() -> None:
    text = "defaults: {context: {size: big, sizes: 3}}\nmodels: {a: builtin:tiny, b: builtin:tiny}"
    assert problems(text) == [
        "m.yaml:2:28: defaults.context.size: expected a whole number, got 'big'",
        "m.yaml:2:33: defaults.context.sizes: no such field (did you mean size?)",
    ]
    assert len(problems("defaults: {context: {size: big}}")) == 1


PROFILES = """
server: {listen: ["127.0.0.1:1"], limits: {queue: 5, concurrency: 2}}
defaults: {context: {size: 8}}
models:
  a: {from: builtin:tiny, system: hi}
  b: builtin:tiny
profiles:
  small: {defaults: {context: {size: 4}}, models: {b: null}, server: {limits: {queue: 1}}}
  loud: {models: {a: {system: HI}, c: builtin:tiny}}
  other: {models: {a: ./x.gguf}}
"""


def test_profiles_are_laid_over_in_the_order_of_choice() -> None:
    plain = read(PROFILES).manifest
    assert list(plain.models) == ["a", "b"]
    both = read(PROFILES, profiles=["small", "loud"]).manifest
    assert list(both.models) == ["a", "c"]
    assert (both.models["a"].system, both.models["c"].context.size) == ("HI", 4)
    assert (both.server.limits.queue, both.server.limits.concurrency) == (1, 2)


def test_a_short_form_in_a_profile_changes_only_the_source() -> None:
    a = read(PROFILES, profiles=["other"]).manifest.models["a"]
    assert (a.from_, a.system) == ("/srv/app/x.gguf", "hi")


def test_a_name_that_a_profile_removed_may_not_be_used_any_more() -> None:
    text = PROFILES + "routes: {default: b}\n"
    assert not problems(text)
    assert "routes.default: there is no model 'b'" in problems(text, profiles=["small"])[0]


def test_an_unknown_profile_names_the_known_ones() -> None:
    assert (
        problems(PROFILES, profiles=["smal"])
        == ["m.yaml:8:1: profiles: there is no profile 'smal' (did you mean small?)"]
        or "did you mean" not in problems(PROFILES, profiles=["smal"])[0]
    )
    assert "profiles: loud, other, small" in problems(PROFILES, profiles=["zzz"])[0]
    assert "the manifest has no profiles" in problems("models: {}", profiles=["p"])[0]


@pytest.mark.parametrize("key", ["mullama: v1", "include: [x]", "profiles: {}"])
def test_a_profile_cannot_change_what_is_read_before_it(key: str) -> None:
    for chosen in ([], ["p"]):
        (said,) = problems(f"mullama: v1\nprofiles: {{p: {{{key}}}}}", profiles=chosen)
        assert said.endswith("a profile cannot change this key")


@pytest.mark.parametrize("text", ["profiles: 3", "profiles: [p]", "profiles: {p: 3}", "profiles: {p: }"])
def test_a_profile_is_a_map_of_changes_also_before_it_is_chosen(text: str) -> None:
    (said,) = problems(text)
    assert "expected a map of" in said


def test_a_typo_in_a_profile_is_found_before_it_is_chosen() -> None:
    assert problems("profiles: {p: {models: {a: {contxt: {}}}}}") == [
        "m.yaml:2:29: profiles.p.models.a.contxt: no such field (did you mean context?)"
    ]


FRAGMENTS = {
    "models/b.yaml": "models: {b: ./b.gguf}\nroutes: {bb: b}\nmoved: [{from: x, to: b}]\n",
    "models/a.yaml": "mullama: v1\nmodels: {a: {from: builtin:tiny, template: {file: ./t.jinja}}}\n",
    "models/t.jinja": "{{ messages }}",
    "models/.hidden.yaml": "models: {h: builtin:tiny}\n",
    "models/notes.txt": "nothing",
    "models/deep/c.yaml": "models: {c: ./c.gguf}\nauth: {keys: {k: {secret: {from_file: ./k}}}}\n"
    "hardware: {profiles: {p: {gpu: {layers: 1}}}}\n",
}


def test_included_files_add_names_and_their_paths_are_relative_to_themselves() -> None:
    files = MemoryFiles(FRAGMENTS)
    loaded = read("include: [models/*.yaml, 'models/*/c.yaml']\nmodels: {m: builtin:tiny}\n", files=files)
    found = loaded.manifest
    assert list(found.models) == ["m", "a", "b", "c"]
    assert found.models["b"].from_ == "/srv/app/models/b.gguf"
    assert found.models["c"].from_ == "/srv/app/models/deep/c.gguf"
    assert found.models["a"].template is not None
    assert found.models["a"].template.text == "{{ messages }}"
    assert found.routes == {"bb": "b"}
    assert found.moved[0].from_ == "x"
    assert found.auth.keys["k"].secret.from_file == "/srv/app/models/deep/k"
    assert list(found.hardware.profiles) == ["p"]
    assert str(loaded.places["models.b"]) == "models/b.yaml:1:10"
    assert [file.path for file in loaded.files] == [
        "/srv/app/m.yaml",
        "/srv/app/models/a.yaml",
        "/srv/app/models/b.yaml",
        "/srv/app/models/deep/c.yaml",
        "/srv/app/models/t.jinja",
    ]


def test_a_model_of_the_manifest_may_be_like_one_of_an_included_file() -> None:
    found = read("include: models/b.yaml\nmodels: {m: {like: b}}", files=FRAGMENTS).manifest
    assert found.models["m"].from_ == "/srv/app/models/b.gguf"


def test_the_pattern_may_come_from_the_environment() -> None:
    found = read("include: ['${TEAM}/b.yaml']", files=FRAGMENTS, env={"TEAM": "models"}).manifest
    assert list(found.models) == ["b"]


INCLUDE_MISTAKES = [
    (
        "include: [x.yaml]",
        {"x.yaml": "models: {m: builtin:tiny}"},
        "x.yaml:1:10: models.m: this name is already used at m.yaml:3:10",
    ),
    ("include: [nope.yaml]", {}, "m.yaml:2:11: include: /srv/app/nope.yaml does not exist"),
    ("include: [nope/*.yaml]", {}, "m.yaml:2:11: include: no file matches nope/*.yaml (check the name of the folder)"),
    ("include: [x.yaml]", {"x.yaml": ""}, "x.yaml:1:1: the file is empty"),
    ("include: [x.yaml]", {"x.yaml": "[a]"}, "x.yaml:1:1: expected a map"),
    ("include: [x.yaml]", {"x.yaml": "a: [\n"}, "x.yaml:1:4: this bracket is not closed"),
    ("include: [x.yaml]", {"x.yaml": b"\xff"}, "x.yaml:1:1: the file is not UTF-8"),
    (
        "include: [x.yaml]",
        {"x.yaml": "server: {}"},
        "x.yaml:1:1: server: an included file cannot contain this key (it may contain models,",
    ),
    (
        "include: [x.yaml]",
        {"x.yaml": "include: [y.yaml]"},
        "x.yaml:1:1: include: an included file cannot contain this key",
    ),
    (
        "include: [x.yaml]",
        {"x.yaml": "hardware: {budget: {}}"},
        "x.yaml:1:12: hardware.budget: an included file cannot contain this key (only profiles here)",
    ),
    (
        "include: [x.yaml]",
        {"x.yaml": "mullama: v2\nmodels: {}"},
        "x.yaml:1:10: mullama: this version of mullama reads v1",
    ),
    ("include: [x.yaml]", {"x.yaml": "models: [a]"}, "x.yaml:1:9: models: expected a map"),
    ("include: [x.yaml]", {"x.yaml": "models: {n: }"}, "x.yaml:1:12: models.n: this name has no value"),
    ("include: [3]", {}, "m.yaml:2:10: include: expected a list of paths (include: [models/*.yaml])"),
    ("include: ['${NONE}']", {}, "m.yaml:2:11: include: the environment variable NONE is not set"),
    ("include: [~bob/x.yaml]", {}, "m.yaml:2:11: include: ~bob/x.yaml is the home of another user"),
]


@pytest.mark.parametrize(("text", "files", "expected"), INCLUDE_MISTAKES)
def test_mistakes_of_included_files_have_their_places(text: str, files: dict[str, str | bytes], expected: str) -> None:
    said = problems(f"{text}\nmodels: {{m: builtin:tiny}}", files=files)
    assert expected in said[0]
    assert len(said) == 1


def test_a_file_that_two_patterns_name_is_read_once() -> None:
    files = MemoryFiles(FRAGMENTS)
    assert not problems("include: [models/b.yaml, models/*.yaml]", files=files)
    assert files.reads.count("/srv/app/models/b.yaml") == 1


def test_more_than_256_included_files_are_refused() -> None:
    files = {f"models/{i}.yaml": f"models: {{m{i}: builtin:tiny}}" for i in range(257)}
    assert "257 files are included (the limit is 256)" in problems("include: [models/*.yaml]", files=files)[0]


def test_home_is_where_the_environment_says() -> None:
    found = read("models: {a: ~/x.gguf}", env={"HOME": "/home/me"}).manifest
    assert found.models["a"].from_ == "/home/me/x.gguf"
    assert "~/x.gguf needs HOME to be set" in problems("models: {a: ~/x.gguf}")[0]

"""The manifest of each host: valid by itself, with its models, and with a way to all others."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.manifest.dump import manifest_text
from mullama.manifest.spec import Manifest, Route
from mullama.manifest.tree import manifest_to_tree, parse_resolved
from mullama.runtime.routing import routings
from mullama.targets.fleet.host_manifest import (
    HostBlocks,
    host_manifest,
    own_blocks,
    with_early_routes,
    with_new_routes,
    with_old_models,
)
from tests.manifest.builders import read

HEAD = """
fleet:
  hosts:
    a: {url: "http://10.0.0.1:11434", key: {from_env: FLEET_KEY}}
    b: {url: "http://10.0.0.2:11434", key: {from_env: FLEET_KEY}, ca_file: /ca.pem}
    c: {url: "http://10.0.0.3:11434"}
"""
MODELS = "models: {x: builtin:tiny, y: builtin:tiny, z: builtin:tiny}\n"
PLACES = {"x": ("a", "b"), "y": ("b", "c"), "z": ("c",)}
HOST = "server: {listen: ['0.0.0.0:80'], ui: false}\nauth: {keys: {k: {secret: {from_env: K}}}}"
OWN = own_blocks(read(HOST).manifest)


def at(host: str, more: str = "", head: str = HEAD, own: HostBlocks = OWN) -> Manifest:
    made = host_manifest(read(head + MODELS + more).manifest, PLACES, host, own)
    assert parse_resolved(manifest_to_tree(made)) == made
    assert read(manifest_text(made)).manifest == made
    return made


def leads(manifest: Manifest) -> dict[str, str]:
    """Each route as `target:weight … | fallback …`."""
    return {
        name: route
        if isinstance(route, str)
        else " ".join(f"{t.model}{'@' + t.peer if t.peer else ''}:{t.weight}" for t in route.to)
        + (f" | {' '.join(route.fallback)}" if route.fallback else "")
        for name, route in manifest.routes.items()
    }


def test_a_host_has_its_models_and_routes_to_all_others() -> None:
    made = at("a")
    assert [*made.models] == ["x"]
    assert leads(made) == {"x": "x:1 | x@b", "y": "y@b:1 y@c:1", "z": "z@c:1"}
    assert {name: (p.url, p.key and p.key.from_env, p.ca_file) for name, p in made.peers.items()} == {
        "b": ("http://10.0.0.2:11434", "FLEET_KEY", "/ca.pem"),
        "c": ("http://10.0.0.3:11434", None, None),
    }
    assert not made.fleet.hosts


def test_hosts_that_share_files_are_peers_of_each_other_without_a_route() -> None:
    apart = "models: {x: builtin:tiny}\n"
    for share, peers in (("true", {"b": True, "c": True}), ("false", {})):
        head = HEAD + f"  share: {share}\n  gateways: none\n"
        made = host_manifest(read(head + apart).manifest, {"x": ("a",)}, "a", OWN)
        assert {name: peer.share for name, peer in made.peers.items()} == peers
        assert not [problem for problem in read(manifest_text(made)).warnings if "no route" in str(problem)]


def test_the_placement_is_no_field_of_a_host() -> None:
    fleet = read(HEAD + "models: {x: {from: builtin:tiny, hosts: [a], replicas: 1}}").manifest
    moved = read(HEAD + "models: {x: {from: builtin:tiny, hosts: [a, b], replicas: 2}}").manifest
    one, other = (host_manifest(each, {"x": ("a",)}, "a", OWN) for each in (fleet, moved))
    assert one.models == other.models


def test_a_host_keeps_its_addresses_and_what_the_fleet_leaves_out() -> None:
    made = at("a", "server: {ui: true}")
    assert (made.server.listen, made.server.ui, [*made.auth.keys]) == (("0.0.0.0:80",), True, ["k"])
    shared = "auth: {keys: {f: {secret: {from_env: FLEET_KEY}, roles: [admin]}}}\nhardware: {budget: {ram: 50%}}"
    made = at("a", shared)
    assert ([*made.auth.keys], made.hardware.budget.ram) == (["f"], "50%")


def test_a_host_that_is_no_gateway_answers_for_its_models_alone() -> None:
    head = HEAD + "  gateways: [b]\n"
    more = "routes: {default: z, both: {to: [x, z], fallback: [default]}}"
    made = at("a", more, head)
    assert leads(made) == {"both": "x:1"}
    assert not made.peers
    assert leads(at("c", more, head)) == {"default": "z", "both": "z:1 | default"}


def test_routes_of_the_fleet_lead_to_the_places_of_their_models() -> None:
    more = "routes: {default: y, alias: x, mix: {to: [{model: x, weight: 3}, {model: y, weight: 1}], fallback: [z]}}"
    assert leads(at("a", more)) == {
        "default": "y@b:1 y@c:1",
        "alias": "x",
        "mix": "x:6 y@b:1 y@c:1 | x x@b z@c",
        "x": "x:1 | x@b", "y": "y@b:1 y@c:1", "z": "z@c:1",
    }  # fmt: skip
    assert leads(at("b", more))["mix"] == "x:3 y:1 | x x@a y y@c z@c"


def test_the_scope_of_a_key_holds_on_each_host() -> None:
    head = HEAD + "  gateways: none\n"
    keys = "auth: {keys: {k: {secret: {from_env: FLEET_KEY}, roles: [admin], models: [x, z, 'q*']}}}"
    assert at("a", keys, head).auth.keys["k"].models == ("x", "[z]", "q*")


def test_groups_and_renames_are_those_of_the_models_that_the_host_has() -> None:
    groups = "groups: {g: {models: [x, y], max: 2}, h: {models: [z]}}\n"
    more = groups + "moved: [{from: o, to: p}, {from: p, to: x}, {from: q, to: z}]"
    made = at("a", more)
    assert {name: group.models for name, group in made.groups.items()} == {"g": ("x",)}
    assert [(move.from_, move.to) for move in made.moved] == [("o", "p"), ("p", "x")]


def test_an_exposed_adapter_is_reached_on_other_hosts() -> None:
    models = "models: {x: {from: builtin:tiny, adapters: [{from: /l.gguf, name: s, expose: true}]}}"
    fleet = read(HEAD + models).manifest
    assert leads(host_manifest(fleet, {"x": ("b",)}, "a", OWN)) == {"x": "x@b:1", "s": "s@b:1"}
    assert leads(host_manifest(fleet, {"x": ("a",)}, "a", OWN)) == {}


def test_the_way_from_one_placement_to_another_is_valid_at_each_step() -> None:
    """x moves from a to c, while y comes to a."""
    fleet = read(HEAD + MODELS).manifest
    before = host_manifest(fleet, PLACES, "a", OWN)
    after = host_manifest(fleet, {"x": ("b", "c"), "y": ("a", "b"), "z": ("c",)}, "a", OWN)
    added = with_old_models(before, after, ("x", "y"))
    assert [*added.models] == ["y", "x"]
    assert leads(added)["z"] == "z@c:1"
    assert "x" not in leads(added)
    routed = with_new_routes(added, after, ("x", "y"))
    assert [*routed.models] == ["y", "x"]
    assert leads(routed) == {"y": "y:1 | y@b", "z": "z@c:1"}
    assert with_new_routes(routed, after, ("y",)) == after
    for each in (added, routed):
        assert parse_resolved(manifest_to_tree(each)) == each


NAMES = ("x", "y", "z")
PLACE = st.fixed_dictionaries(
    {name: st.lists(st.sampled_from("abc"), min_size=1, unique=True).map(lambda h: tuple(sorted(h))) for name in NAMES}
)
TARGET = st.builds(lambda m, w: {"model": m, "weight": w}, st.sampled_from(NAMES), st.integers(1, 9))
ROUTE: st.SearchStrategy[Any] = st.sampled_from(NAMES) | st.fixed_dictionaries(
    {"to": st.lists(TARGET, min_size=1, max_size=3, unique_by=lambda t: t["model"])},
    optional={"fallback": st.lists(st.sampled_from(["r1", *NAMES]), max_size=2, unique=True)},
)


@given(PLACE, PLACE, ROUTE, st.sampled_from(["all", "none", ("a", "b")]))
@settings(max_examples=60, deadline=None)
def test_each_host_manifest_is_valid_and_each_gateway_knows_every_name(
    places: dict[str, Any], later: dict[str, Any], route: Any, gateways: Any
) -> None:
    fleet = read(HEAD + MODELS + "routes: {r1: z}").manifest
    routed = {"r1": "z", "r2": route if isinstance(route, str) else Route.model_validate(route)}
    fleet = fleet.model_copy(update={"routes": routed, "fleet": fleet.fleet.model_copy(update={"gateways": gateways})})
    for host in "abc":
        made, then = (host_manifest(fleet, each, host, OWN) for each in (places, later))
        every = {*made.models, *later} & {*made.models, *then.models}
        for manifest in (made, with_old_models(made, then, every), with_new_routes(made, then, every)):
            try:
                assert parse_resolved(manifest_to_tree(manifest)) == manifest
            except Exception as error:
                if "is the model that failed" in str(error):
                    return  # a mistake of the drawn route itself
                raise
            routings(manifest)
        if gateways == "all":
            assert {*made.models, *made.routes} == {*NAMES, "r1", "r2"}


def test_a_host_without_the_ranking_model_searches_by_words() -> None:
    text = "search: {provider: searxng, url: 'https://s.example.org', embed: e}\n"
    models = MODELS.replace(
        "z: builtin:tiny}", "z: {from: builtin:tiny, search: true}, e: {from: builtin:tiny, task: embedding}}"
    )
    fleet = read(HEAD + models + text).manifest
    places = {**PLACES, "e": ("a",)}
    made = {host: host_manifest(fleet, places, host, OWN) for host in ("a", "c")}
    assert [one.search and one.search.embed for one in made.values()] == ["e", None]
    assert all(parse_resolved(manifest_to_tree(one)) == one for one in made.values())


def test_old_and_early_models_keep_their_pins() -> None:
    def pinned(models: str, **digits: str) -> Manifest:
        pin = "{{resolved: 'hf:o/{0}:Q8_0', files: [{{name: m, size: 1, digest: 'sha256:{1}'}}]}}"
        sources = ", ".join(f"'hf:o/{name}:Q8_0': {pin.format(name, digit * 64)}" for name, digit in digits.items())
        return read(f"models: {{{models}}}\nlock: {{sources: {{{sources}}}}}\n").manifest

    def digits(made: Manifest) -> dict[str, str]:
        return {source[5]: pin.files[0].digest[7] for source, pin in made.lock.sources.items()}

    applied = pinned("x: 'hf:o/x:Q8_0', y: 'hf:o/y:Q8_0'", x="1", y="2")
    wanted = pinned("x: 'hf:o/x:Q8_0', z: 'hf:o/z:Q8_0'", x="3", z="4")
    assert digits(with_old_models(applied, wanted, ["y"])) == {"x": "3", "y": "2", "z": "4"}
    assert digits(with_new_routes(applied, wanted, [])) == {"x": "3", "z": "4"}
    early = with_early_routes(applied, applied, {**applied.models, "z": wanted.models["z"]}, wanted.lock)
    assert digits(early) == {"x": "1", "y": "2", "z": "4"}

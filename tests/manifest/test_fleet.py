"""The fleet of a manifest: hosts, the models that choose them, and mistakes of both."""

from __future__ import annotations

import pytest

from mullama.manifest.checks.fleet import gateways_of, matching_hosts, present_hosts
from mullama.manifest.dump import manifest_text
from mullama.manifest.spec import SecretRef
from mullama.manifest.tree import manifest_to_tree, parse_resolved
from tests.manifest.builders import problems, read

M = "models: {m: builtin:tiny}\n"
TWO = "fleet: {hosts: {a: {url: 'http://127.0.0.1:1'}, b: {url: 'http://127.0.0.1:2'}}}\n"


def fleet(more: str) -> str:
    return TWO.replace("}}}\n", "}}, " + more + "}\n")


def test_each_form_is_read() -> None:
    manifest = read(
        """
fleet:
  hosts:
    a: {url: "https://a.example.org/v1", key: {from_file: ./key}, ca_file: ./ca.pem, labels: {gpu: h200, room: "1"}}
    b: {url: "https://b.example.org", labels: {gpu: h200}}
    c: {url: "http://10.0.0.1:11434"}
  placement: pack
  gateways: [c, a]
  rollout: {max_unavailable: 2, canary: 1, pause: 30s}
models:
  any: {from: builtin:tiny}
  names: {from: builtin:tiny, hosts: [c, a], replicas: 2}
  labels: {from: builtin:tiny, hosts: {gpu: h200}}
  both: {from: builtin:tiny, hosts: {gpu: h200, room: "1"}}
"""
    ).manifest
    found = manifest.fleet
    assert found.hosts["a"].url == "https://a.example.org"
    assert found.hosts["a"].key == SecretRef(from_file="/srv/app/key")
    assert found.hosts["a"].ca_file == "/srv/app/ca.pem"
    assert (found.placement, found.rollout.pause, gateways_of(found)) == ("pack", 30.0, ("a", "c"))
    assert {name: matching_hosts(model, found) for name, model in manifest.models.items()} == {
        "any": ("a", "b", "c"),
        "names": ("a", "c"),
        "labels": ("a", "b"),
        "both": ("a",),
    }
    assert parse_resolved(manifest_to_tree(manifest)) == manifest
    assert read(manifest_text(manifest)).manifest == manifest


@pytest.mark.parametrize(
    "block",
    ["fleet: {hosts: {a: {url: 'http://127.0.0.1:1', key: KEY}}}", "peers: {a: {url: 'http://127.0.0.1:1', key: KEY}}"],
)
def test_a_profile_replaces_the_place_of_a_key(block: str) -> None:
    first, second = block.replace("KEY", "{from_env: A}"), block.replace("KEY", "{from_file: /b}")
    manifest = read(f"{M}{first}\nprofiles: {{p: {{{second}}}}}", profiles=["p"]).manifest
    assert {**manifest.fleet.hosts, **manifest.peers}["a"].key == SecretRef(from_file="/b")


@pytest.mark.parametrize(("gateways", "expected"), [("all", ("a", "b")), ("none", ()), ("[b]", ("b",))])
def test_gateways_are_all_none_or_some(gateways: str, expected: tuple[str, ...]) -> None:
    assert gateways_of(read(M + fleet(f"gateways: {gateways}")).manifest.fleet) == expected


MISTAKES = [
    ("models: {m: {from: builtin:tiny, replicas: 2}}", "models.m.replicas: is for a fleet, and fleet.hosts is empty"),
    ("models: {m: {from: builtin:tiny, hosts: [a]}}", "models.m.hosts: is for a fleet, and fleet.hosts is empty"),
    (M + "fleet: {placement: pack}", "m.yaml:3:1: fleet: has no hosts (fleet: {hosts: {NAME: {url: …}}})"),
    (
        "models: {m: {from: builtin:tiny, replicas: 3}}\n" + TWO,
        "m.yaml:2:44: models.m.replicas: 3 replicas need as many hosts, and the fleet has 2 hosts",
    ),
    (
        "models: {m: {from: builtin:tiny, hosts: [a], replicas: 2}}\n" + TWO,
        "models.m.replicas: 2 replicas need as many hosts, and 1 host may have the model",
    ),
    (
        "models: {m: {from: builtin:tiny, hosts: [a, aa]}}\n" + TWO,
        "m.yaml:2:45: models.m.hosts[1]: there is no host 'aa' (did you mean a?)",
    ),
    (
        "models: {m: {from: builtin:tiny, hosts: [a, a]}}\n" + TWO,
        "models.m.hosts[1]: a is listed twice (keep one of them)",
    ),
    (
        "models: {m: {from: builtin:tiny, hosts: {gpu: h200}}}\n" + TWO,
        "models.m.hosts: no host of the fleet has gpu: h200 (fleet.hosts.NAME.labels: {KEY: VALUE})",
    ),
    (
        "models: {m: {from: builtin:tiny, hosts: {gpu: h200}}}\n" + TWO.replace("1'}", "1', labels: {gpu: h100}}"),
        "models.m.hosts: no host of the fleet has gpu: h200 (labels of hosts: gpu: h100)",
    ),
    (
        "models: {m: {from: builtin:tiny, hosts: some}}\n" + TWO,
        "models.m.hosts: expected any, a list of hosts, or labels such as {gpu: h200}",
    ),
    ("models: {m: {from: builtin:tiny, hosts: []}}\n" + TWO, "models.m.hosts: expected any, a list of hosts"),
    (M + TWO.replace(":2'", ":1'"), "fleet.hosts.b.url: is the address of a as well (keep one of them)"),
    (M + TWO.replace("b:", "'b b':"), "fleet.hosts.b b: 'b b' is not a name of a host"),
    (
        M + TWO.replace("http://127.0.0.1:1'", "ftp://127.0.0.1:1'"),
        "fleet.hosts.a.url: 'ftp://127.0.0.1:1' is not the address of a server",
    ),
    (
        M + TWO.replace("1'}", "1', key: {from_env: A, from_file: b}}"),
        "fleet.hosts.a.key: expected one of from_env and from_file",
    ),
    (M + "peers: {a: {url: 'http://127.0.0.1:3'}}\n" + TWO, "fleet.hosts.a: a peer has the same name"),
    (M + fleet("gateways: [c]"), "fleet.gateways[0]: there is no host 'c'"),
    (M + fleet("gateways: some"), "fleet.gateways: expected all, none, or a list of hosts"),
    (
        M + fleet("rollout: {canary: 2}"),
        "fleet.rollout.canary: leaves no host for later: the fleet has 2 hosts (a smaller number)",
    ),
    (M + fleet("rollout: {max_unavailable: 0}"), "fleet.rollout.max_unavailable: "),
    (M + fleet("rollout: {pause: never}"), "fleet.rollout.pause: expected a duration such as 30s, or manual"),
    (M + fleet("rollout: {pause: soon}"), "fleet.rollout.pause: "),
    (M + TWO + "sync: {git: {url: 'https://git.example.org/m.git'}}", "sync.git: is followed by one server"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_names_its_place_and_the_remedy(text: str, expected: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert expected in found[0]


WARNINGS = [
    (
        M + TWO.replace("http://127.0.0.1:1'}", "http://a.example.org', key: {from_env: A}}"),
        "fleet.hosts.a.url: the key is sent without encryption (use https://)",
    ),
    (M + fleet("rollout: {pause: manual}"), "fleet.rollout.pause: no effect without canary"),
    (M + TWO + "server: {listen: ['127.0.0.1:1']}", "server.listen: no effect: each host of a fleet keeps its own"),
    (
        M
        + TWO.replace("}, b", ", key: {from_env: A}}, b").replace(":2'", ":2', key: {from_env: B}")
        + "auth: {keys: {k: {secret: {from_env: A}, roles: [admin]}}}",
        "fleet.hosts.b.key: no key of auth.keys with the role admin has this secret: the next apply could not reach "
        "the host (refer to the secret of an admin key of auth.keys)",
    ),
]


@pytest.mark.parametrize(("text", "expected"), WARNINGS)
def test_the_useless_and_the_dangerous_is_a_warning(text: str, expected: str) -> None:
    found = [str(warning) for warning in read(text).warnings]
    assert len(found) == 1
    assert found[0].endswith(expected)


def test_a_fleet_needs_a_host_that_is_not_away() -> None:
    away = TWO.replace("'}", "', away: true}")
    [problem] = problems(M + away)
    assert "fleet.hosts: every host is away" in problem
    loaded = read(M + fleet("gateways: [a]").replace(":1'}", ":1', away: true}"))
    assert present_hosts(loaded.manifest.fleet) == ("b",)
    assert any("every gateway is away" in str(warning) for warning in loaded.warnings)


def test_a_rollout_without_unavailable_hosts_needs_a_surge() -> None:
    [problem] = problems(M + fleet("rollout: {max_unavailable: 0}"))
    assert "fleet.rollout.max_unavailable: allows no change without max_surge" in problem
    assert not problems(M + fleet("rollout: {max_unavailable: 0, max_surge: 1}"))

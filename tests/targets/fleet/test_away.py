"""Plans around a host that is away: its models move or wait, and nothing is assumed of it."""

from __future__ import annotations

import pytest

from mullama.errors import NotFound, Refused
from mullama.manifest.spec import Manifest, Peer
from mullama.targets.fleet.away import away_hosts, skipping
from mullama.targets.fleet.observe import observe_fleet
from mullama.targets.fleet.plan import FleetPlan, draft_fleet, plan_fleet
from mullama.targets.fleet.plan_views import fleet_lines, fleet_markdown, fleet_tree
from tests.manifest.builders import read
from tests.targets.fleet.test_plan import FILES, HEAD, MODELS, PlannedHost, carried_out, lines, planned, ports, steps
from tests.targets.fleet.test_plan import three as three_hosts

Hosts = tuple[PlannedHost, ...]


def around(text: str, hosts: Hosts, *away: str) -> FleetPlan:
    """Plan for the hosts that are not away. The others are not asked."""
    manifest = skipping(read(HEAD + text).manifest, away)
    present = ports(*(host for host in hosts if host.name not in away))
    return plan_fleet(draft_fleet(manifest, observe_fleet(present, "0.2.0"), FILES), present, "0.2.0")


def served(text: str, **options: float) -> Hosts:
    """Three hosts that serve a manifest."""
    hosts = three_hosts(**options)
    carried_out(planned(text, *hosts), hosts)
    return hosts


def targets(host: PlannedHost, name: str) -> list[str | None]:
    route = host.applied.routes[name]
    assert not isinstance(route, str)
    return [target.peer for target in route.to]


def test_the_models_of_an_absent_host_move_and_its_return_shows_what_it_lacks() -> None:
    hosts = served(MODELS)  # x on a and b, y on c, z on a
    plan = around(MODELS, hosts, "c")
    assert plan.complete
    assert plan.draft.placement.hosts == {"x": ("a", "b"), "y": ("b",), "z": ("a",)}
    assert steps(plan) == ["change b", "route ab"]
    assert lines(plan)[-4:] == [
        "c: away, and left out", "step 1: models of b", "step 2: routes of a, b", "2 hosts of 2 to change",
    ]  # fmt: skip
    carried_out(plan, hosts[:2])
    assert targets(hosts[0], "y") == ["b"]
    assert around(MODELS, hosts, "c").empty

    changed = MODELS.replace("y: /m/2.gguf", "y: {from: /m/2.gguf, system: Hi}")
    carried_out(around(changed, hosts, "c"), hosts[:2])
    back = planned(changed, *hosts)
    assert [name for name, own in back.plans.items() if not own.empty] == ["a", "b", "c"]
    carried_out(back, hosts)
    assert planned(changed, *hosts).empty
    assert sum("y" in host.applied.models for host in hosts) == 1


def test_a_model_that_only_the_absent_host_may_have_waits_and_keeps_its_routes() -> None:
    text = "models: {x: /m/1.gguf, y: {from: /m/2.gguf, hosts: [c]}}\nroutes: {default: y}\n"
    hosts = served(text)
    plan = around(text.replace("x: /m/1.gguf", "x: {from: /m/1.gguf, system: Hi}"), hosts, "c")
    assert plan.complete
    assert steps(plan) == ["change a"]
    assert "y waits for c" in lines(plan)
    carried_out(plan, hosts[:2])
    for host in hosts[:2]:
        assert targets(host, "y") == targets(host, "default") == ["c"]


def test_a_model_keeps_the_replicas_that_others_may_have() -> None:
    hosts = served("models: {x: {from: /m/1.gguf, hosts: [b, c], replicas: 2}}")
    plan = around("models: {x: {from: /m/1.gguf, hosts: [b, c], replicas: 2}}", hosts, "c")
    assert plan.draft.placement.hosts == {"x": ("b",)}
    assert "x has 1 of 2 replicas without c" in lines(plan)
    carried_out(plan, hosts[:2])
    assert targets(hosts[0], "x") == ["b"]


def test_a_model_that_shall_move_to_the_absent_host_stays_where_it_is() -> None:
    hosts = served("models: {x: {from: /m/1.gguf, hosts: [a]}}")
    plan = around("models: {x: {from: /m/1.gguf, hosts: [c]}}", hosts, "c")
    assert plan.draft.placement.hosts == {"x": ("a",)}
    assert plan.draft.steps == ()


def test_a_model_without_room_elsewhere_waits_with_the_numbers() -> None:
    text = "models: {x: /m/1.gguf, y: /m/2.gguf, z: /m/3.gguf}"
    hosts = served(text, ram=1)  # one model fits on each
    lost = next(name for name, places in planned(text, *hosts).draft.placement.hosts.items() if places == ("c",))
    plan = around(text, hosts, "c")
    assert plan.complete
    assert any(line.startswith(f"{lost} waits for c, because {lost} needs ") for line in lines(plan))
    carried_out(plan, hosts[:2])
    assert targets(hosts[0], lost) == ["c"]
    assert planned(text, *hosts).empty


def test_a_model_that_would_lose_a_host_is_refused() -> None:
    hosts = served("models: {x: {from: /m/1.gguf, hosts: [a, c]}}")
    hosts[0].ram = 1 << 20
    plan = around("models: {x: {from: /m/1.gguf, hosts: [a, c]}}", hosts, "c")
    assert [each.model for each in plan.draft.placement.unplaced] == ["x"]
    assert not plan.complete


def test_no_host_asks_an_absent_one_for_files() -> None:
    text = "  share: true\n" + MODELS
    hosts = served(text)
    assert isinstance(hosts[0].applied.peers["c"], Peer)
    carried_out(around(text, hosts, "c"), hosts[:2])
    assert [*hosts[0].applied.peers] == ["b"]


def test_the_published_forms_have_the_hosts_that_are_away() -> None:
    text = "models: {x: /m/1.gguf, y: {from: /m/2.gguf, hosts: [c]}}"
    plan = around(text, served(text), "c")
    tree = fleet_tree(plan)
    assert (tree["complete"], tree["away"], [*tree["hosts"]]) == (True, ["c"], ["a", "b"])
    assert tree["waiting"] == [
        {"model": "y", "replicas": 1, "hosts": [], "away": ["c"], "reason": "y waits for c"},
    ]  # fmt: skip
    assert "- c: away, and left out\n- y waits for c" in fleet_markdown(plan, "fleet")


def test_a_declared_host_is_away_without_an_option() -> None:
    manifest = read(HEAD.replace('"http://10.0.0.3"', '"http://10.0.0.3", away: true') + MODELS).manifest
    assert away_hosts(manifest) == ("c",)
    assert skipping(read(HEAD + MODELS).manifest, ["c"]) == manifest
    draft = draft_fleet(manifest, observe_fleet(ports(*three_hosts()[:2]), "0.2.0"), FILES)
    assert (draft.possible, draft.away) == (True, ("c",))


def test_another_host_without_an_answer_still_stops_the_plan() -> None:
    hosts = three_hosts()
    hosts[1].gone = NotFound("no route to b")
    plan = around(MODELS, hosts, "c")
    assert not plan.complete
    assert [line.text for line in fleet_lines(plan)][-1] == (
        "1 host cannot be planned: apply would change nothing; --skip b plans without it"
    )


def test_a_host_to_skip_must_exist_and_another_one_must_be_left() -> None:
    manifest: Manifest = read(HEAD + MODELS).manifest
    with pytest.raises(NotFound, match="the fleet has no host 'd'"):
        skipping(manifest, ["d"])
    with pytest.raises(Refused, match="every host of the fleet would be away"):
        skipping(manifest, ["a", "b", "c"])

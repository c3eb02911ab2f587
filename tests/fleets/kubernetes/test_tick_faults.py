"""What a tick reads, or loads, breaks: nothing moves without a reason, the reason is told, and what is whole again is
put right without a hand on the fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.config import Config, ConfigError, read_config
from tasks.decision import Result, Tick
from tasks.fleets import FleetUnreadableError
from tasks.record import one_line
from tasks.record.page import summary
from tests.fleets.kubernetes.cluster import Cluster, deployment
from tests.fleets.kubernetes.conftest import demand
from tests.fleets.kubernetes.control_plane import ControlPlane
from tests.fleets.kubernetes.stage import Stage, failed
from tests.prometheus_server import prometheus_server
from tests.triton_server import ECHO

pytestmark = pytest.mark.kubernetes

LOST = {"metrics": {"prometheus_url": "http://127.0.0.1:9"}}
STALE = {
    "metrics": {"demand_query": "sum by (model) (rate(asked_once_total[{window}]))", "history_s": 3600},
}
NO_GATEWAY = {"metrics": {"demand_query": "sum by (model) (rate(of_a_gateway_that_is_down_total[{window}]))"}}


@pytest.fixture(scope="module")
def stage(
    plane: ControlPlane, prometheus: str, pod_network: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """One for all faults: two pods, each with a copy of ``echo``."""
    if pod_network:
        pytest.skip(pod_network)
    with ExitStack() as stack:
        cluster = Cluster(plane, "tick-faults", stack)
        cluster.pool("small", 2)
        yield Stage(cluster, tmp_path_factory.mktemp("stage"), prometheus)


@pytest.fixture
def calm(stage: Stage) -> Config:
    """What there is, is what it asks for: two copies."""
    config = stage.config(echo={"min_copies": 2})
    stage.ticks_until(config, lambda: len(stage.serving("echo")) == 2 and stage.count() == 2)
    return config


def tempting(stage: Stage) -> Config:
    """On it one of the two copies, and its pod, go in the next tick."""
    return stage.config(echo={"min_copies": 1})


def changed(config: Config, sections: dict[str, dict[str, Any]]) -> Config:
    whole = config.model_dump()
    return Config.model_validate(whole | {key: whole[key] | of for key, of in sections.items()})


def is_told(a_tick: Tick, words: str) -> bool:
    """In the artifact's page, and in the line that is logged."""
    return words in summary(a_tick) and words in one_line(a_tick)


def warnings(stage: Stage) -> set[tuple[str, str, int]]:
    """Reason, message and count of what `kubectl describe deployment` tells of ours."""
    events = stage.cluster.api.items(stage.cluster.api.path("v1", "events"), fieldSelector="source=triton-placement")
    return {(event["reason"], event["message"], event["count"]) for event in events if event["type"] == "Warning"}


# --- what it reads


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        pytest.param(LOST, "does not answer", id="Prometheus is down"),
        pytest.param(STALE, "s old, limit 30 s", id="Prometheus is stale"),
        pytest.param(NO_GATEWAY, "check metrics.demand_query and the gateway's scrape", id="no demand of the gateway"),
    ],
)
def test_demand_that_is_not_known_moves_nothing(
    stage: Stage, calm: Config, broken: dict[str, dict[str, Any]], words: str
) -> None:
    before, told = stage.cluster.versions(), warnings(stage)
    held = stage.tick(changed(tempting(stage), broken))
    assert is_told(held, words)
    assert [u.subject for u in held.observation.unknown] == ["prometheus"]
    assert {s.model for s in held.sizings if s.is_held} == {"echo", "slow"}
    assert held.plan.steps == ()
    assert {reason for reason, *_ in warnings(stage) - told} == {"HeldDemandUnknown"}
    assert stage.cluster.versions() == before
    whole = stage.tick(calm)
    assert (whole.observation.unknown, whole.plan.steps) == ((), ())
    assert not any(s.is_held for s in whole.sizings)


def test_the_same_fleet_moves_once_demand_is_known(stage: Stage, calm: Config) -> None:
    """So what was held above was held by the fault."""
    stage.ticks_until(tempting(stage), lambda: len(stage.serving("echo")) == stage.count() == 1)


# --- what it loads


def without_files(folder: Path) -> Callable[[], object]:
    """Given: what brings them back."""
    away = folder.parents[1] / folder.name
    folder.rename(away)
    return lambda: away.rename(folder)


def with_broken_files(folder: Path) -> Callable[[], object]:
    """They are from the start."""
    return lambda: (folder / "1" / "model.py").write_text(ECHO.format(load_s=0))


@pytest.mark.parametrize(
    ("model", "damage", "says"),
    [
        pytest.param("other", without_files, "failed to poll from model repository", id="no files"),
        pytest.param("broken", with_broken_files, "no weights", id="broken files"),
    ],
)
def test_a_load_that_triton_refuses_is_told_and_stops_nothing_else(
    stage: Stage, calm: Config, model: str, damage: Callable[[Path], Callable[[], object]], says: str
) -> None:
    repairs = [damage(repository / model) for repository in stage.repositories()]
    policies: dict[str, Any] = {"echo": {"min_copies": 2}, model: {"min_copies": 1}}
    wanted = stage.config(**policies)
    serving = stage.serving("echo")
    refused = stage.tick(wanted)
    (line,) = failed(refused)
    assert says in line
    assert says in summary(refused)
    assert any(reason == "LoadFailed" and says in message for reason, message, _ in warnings(stage))
    assert {o.step.model for o in refused.outcomes if o.result is Result.DONE} <= {model}
    assert stage.serving("echo") == serving
    assert not stage.serving(model)
    for repair in repairs:
        repair()
    stage.ticks_until(wanted, lambda: bool(stage.serving(model)), 4)


# --- what it loaded


def test_a_copy_that_is_ready_and_whose_process_is_dead_is_repaired(stage: Stage, calm: Config, tmp_path: Path) -> None:
    broken, whole = sorted(stage.serving("echo"))
    server = stage.servers[broken]
    server.kill_stubs()
    assert {server.infer("echo") for _ in range(4)} == {500}
    now = time.time()
    series = f'nv_inference_request_failure{{model="echo",replica="{broken}",reason="BACKEND"}}'
    samples = {**demand(now), series: {now + at: max(0.0, 4.0 + 0.4 * at) for at in range(-30, 1)}}
    with prometheus_server(tmp_path, samples) as url:
        settings = changed(calm, {"metrics": {"prometheus_url": url}})
        repaired = stage.tick(settings)
        assert stage.tick(settings).plan.steps == ()
    assert "copy_failing" in summary(repaired)
    assert is_told(repaired, "requests failed in")
    assert failed(repaired) == []
    assert {o.step.replica for o in repaired.outcomes} == {broken}
    assert server.infer("echo") == 200
    assert set(stage.serving("echo")) == {broken, whole}


# --- what it is told


def test_an_invalid_configuration_is_refused_where_it_is_wrong(stage: Stage, calm: Config, tmp_path: Path) -> None:
    before, path = stage.cluster.versions(), tmp_path / "placement.yaml"
    whole = yaml.safe_load(calm.model_dump_json(exclude_unset=True))
    path.write_text(yaml.safe_dump(whole | {"limits": {"bugdet": 3}}))
    with pytest.raises(ConfigError, match=r"limits\.bugdet: .*; allowed: interval_s, budget, "):
        read_config(path)
    assert stage.cluster.versions() == before
    path.write_text(yaml.safe_dump(whole))
    assert stage.tick(read_config(path)).plan.steps == ()


def test_a_pool_that_the_cluster_does_not_have_ends_the_tick_before_it_acts(stage: Stage, calm: Config) -> None:
    before = stage.cluster.versions()
    large = calm.pools["small"].model_dump()
    with pytest.raises(FleetUnreadableError, match="pool large: no Deployment in namespace tick-faults has the label"):
        stage.tick(changed(tempting(stage), {"pools": {"large": large}}))
    assert stage.cluster.versions() == before


def test_a_pool_with_two_deployments_ends_the_tick_until_one_is_gone(stage: Stage, calm: Config) -> None:
    stage.cluster.create("apps/v1", "deployments", deployment("triton-small-2", "small", 0))
    before = stage.cluster.versions()
    try:
        with pytest.raises(FleetUnreadableError, match="triton-small and triton-small-2 are both labelled"):
            stage.tick(tempting(stage))
        assert stage.cluster.versions() == before
    finally:
        stage.cluster.delete("apps/v1", "deployments", "triton-small-2")
    assert stage.tick(calm).plan.steps == ()

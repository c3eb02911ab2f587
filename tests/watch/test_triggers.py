"""The triggers of prefect.yaml on a real Prefect server, registered as the chart's Job and `make up` do it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.watch.changes import Change
from tasks.watch.tell import NotToldError, tell
from tests.watch.prefect_server import PrefectServer, prefect_server

pytestmark = pytest.mark.servers

READY = [Change("triton.replica.ready", name, "ready for a load", "small") for name in ("a", "b")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        for pool in ("local", "demo"):
            running.run("work-pool", "create", "--overwrite", "--type", "process", pool)
        running.run("deploy", "--name", "local", "--params", '{"config": "elsewhere.yaml"}')
        for interval_s in ("30", "20"):  # an upgrade of the chart replaces the schedule
            kubernetes = ("--name", "kubernetes", "--pool", "demo", "--param", "config=placement.yaml")
            running.run("deploy", *kubernetes, "--interval", interval_s)
        with temporary_settings({PREFECT_API_URL: running.url}):
            yield running


def test_a_deployment_has_one_schedule_and_waits_for_the_run_before(server: PrefectServer) -> None:
    local, kubernetes = sorted(server.ask("deployments/filter"), key=lambda d: str(d["name"]), reverse=True)
    assert (local["name"], local["work_pool_name"]) == ("local", "local")
    assert (kubernetes["name"], kubernetes["work_pool_name"]) == ("kubernetes", "demo")
    assert [s["schedule"]["interval"] for d in (local, kubernetes) for s in d["schedules"]] == [30, 20]
    for deployment, config in ((local, "elsewhere.yaml"), (kubernetes, "placement.yaml")):
        assert deployment["parameters"] == {"mode": "apply", "config": config}
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"


@pytest.mark.parametrize("fleet", ["local", "kubernetes"])
@pytest.mark.parametrize(
    "found",
    [
        READY,
        [Change("triton.replica.lost", "a", "gone; it carried echo", "small")],
        [Change("triton.pool.scaled", "small", "1 to 2 replicas", "small")],
        [Change("triton.model.unserved", "cold", "1 requests found no copy")],
    ],
    ids=lambda found: found[0].event,
)
def test_what_changed_together_starts_one_tick_of_its_fleet(
    server: PrefectServer, fleet: str, found: list[Change]
) -> None:
    before = {run["id"] for run in server.runs()}
    tell(found, fleet)
    deadline = time.monotonic() + 20
    while not (new := [run for run in server.runs() if run["id"] not in before]):
        assert time.monotonic() < deadline, "no run within 20 s"
        time.sleep(0.1)
    time.sleep(0.5)
    new = [run for run in server.runs() if run["id"] not in before]
    assert [run["parameters"]["config"] for run in new] == ["elsewhere.yaml" if fleet == "local" else "placement.yaml"]


def test_a_server_that_is_not_there_says_so() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(NotToldError, match="ConnectError"),
    ):
        tell(READY, "local")

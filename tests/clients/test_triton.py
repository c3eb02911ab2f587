"""The Triton client against a real Triton, over gRPC and over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.clients.triton import (
    SECRET_FILE,
    Triton,
    TritonError,
    TritonTimeoutError,
    as_statistics,
    control_secret,
    memory_by_model,
)
from tasks.world import Replica
from tests.triton_server import TritonServer, free_ports, triton_server

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton_server(tmp_path_factory.mktemp("triton")) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def triton(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Triton]:
    replica = server.replica if request.param == "grpc" else replace(server.replica, grpc="")
    with Triton(replica) as client:
        yield client
        for model in ("echo", "slow"):
            client.unload(model)
            _wait_for(client, model, "UNAVAILABLE", "")


def _wait_for(client: Triton, model: str, *states: str) -> None:
    deadline = time.monotonic() + 20
    while (state := client.index()[model].state) not in states:
        assert time.monotonic() < deadline, f"{model} is {state}, not {states}"
        time.sleep(0.05)


def test_load_and_unload_show_in_the_index(triton: Triton) -> None:
    triton.load("echo", 30)
    assert triton.index()["echo"].state == "READY"
    assert triton.is_ready("echo")
    assert not triton.is_ready("other")
    triton.unload("echo")
    assert triton.index()["echo"].state in ("UNLOADING", "UNAVAILABLE")
    _wait_for(triton, "echo", "UNAVAILABLE")
    assert triton.index()["echo"].reason == "unloaded"


def test_a_broken_model_names_its_cause_in_one_line(triton: Triton) -> None:
    with pytest.raises(TritonError, match=r"^replica small-0 \(127.+\), model broken: .*no weights$"):
        triton.load("broken", 30)
    assert "no weights" in triton.index()["broken"].reason


def test_an_unknown_model_is_an_error(triton: Triton) -> None:
    with pytest.raises(TritonError, match="model nope: failed to load 'nope'"):
        triton.load("nope", 30)


def test_a_load_goes_on_after_its_caller_gave_up(triton: Triton) -> None:
    with pytest.raises(TritonTimeoutError, match=r"load_model has no answer after 0\.3 s"):
        triton.load("slow", 0.3)
    assert triton.index()["slow"].state == "LOADING"
    _wait_for(triton, "slow", "READY")


def test_statistics_count_since_the_last_load(triton: Triton, server: TritonServer) -> None:
    triton.load("echo", 30)
    assert [server.infer("echo") for _ in range(3)] == [200, 200, 200]
    echo = triton.statistics()["echo"]
    assert (echo.success, echo.failure, echo.requests) == (3, 0, 3)
    assert echo.compute_ns >= 3 * 20_000_000  # 3 requests of 20 ms
    assert abs(echo.last_success_ms / 1000 - time.time()) < 5
    triton.unload("echo")
    _wait_for(triton, "echo", "UNAVAILABLE")
    triton.load("echo", 30)
    assert triton.statistics()["echo"].requests == 0
    # a Python model: its backend does not say
    assert triton.memory_bytes() == {}


@pytest.mark.parametrize(
    ("name", "uses", "expected"),
    [
        ("two GPUs, not the host beside them", [("GPU", "300"), ("GPU", "200"), ("CPU", "90")], {"m": 500}),
        ("on the host alone", [("CPU", "90"), ("CPU_PINNED", "10")], {"m": 100}),
        ("its backend says nothing", [], {}),
    ],
)
def test_memory_that_a_backend_reports(name: str, uses: list[tuple[str, str]], expected: dict[str, int]) -> None:
    memory = [{"type": where, "id": "0", "byte_size": size} for where, size in uses]
    answer = {"model_stats": [{"name": "m", "version": "1", "memory_usage": memory, "new_field": 1}]}
    assert memory_by_model(as_statistics(answer)) == expected


def test_a_request_in_the_queue_outlives_an_unload(server: TritonServer) -> None:
    """20 requests of 20 ms queue for one instance; the unload comes while most of them wait."""
    answers: list[int] = []
    with Triton(server.replica) as triton:
        triton.load("echo", 30)
        threads = [threading.Thread(target=lambda: answers.append(server.infer("echo"))) for _ in range(20)]
        for thread in threads:
            thread.start()
        while triton.statistics()["echo"].success < 3:
            time.sleep(0.01)
        triton.unload("echo")
        for thread in threads:
            thread.join()
        _wait_for(triton, "echo", "UNAVAILABLE")
    assert answers == [200] * 20


@pytest.mark.parametrize("name", ["../x", "a/b", "a?b", "", "a b", "-a"])
def test_a_name_that_may_not_go_into_a_url_is_refused(name: str) -> None:
    with (
        Triton(Replica("r", "p", "g", 1, 1.0, grpc="127.0.0.1:1")) as triton,
        pytest.raises(TritonError, match="not a name"),
    ):
        triton.load(name, 1)


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_nobody_there_is_told_at_once(kind: str) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    replica = Replica("small-1", "small", "small", 1, 1.0)
    replica = replace(replica, grpc=address) if kind == "grpc" else replace(replica, http=address)
    began = time.monotonic()
    with Triton(replica) as triton, pytest.raises(TritonError, match=r"replica small-1 \(127.*refused"):
        triton.index()
    assert time.monotonic() - began < 1.5


def test_control_needs_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guards = (
        "--http-restricted-api=model-repository:control=hush",
        "--grpc-restricted-protocol=model-repository:control=hush",
    )
    with triton_server(tmp_path, "guarded", *guards) as server:
        over_http = replace(server.replica, grpc="")
        for replica in (server.replica, over_http):
            with Triton(replica) as triton, pytest.raises(TritonError, match="guarded"):
                triton.index()
            with Triton(replica, secret="control=hush") as triton:
                assert "echo" in triton.index()
        (tmp_path / "secret").write_text("control=hush\n")
        monkeypatch.setenv(SECRET_FILE, str(tmp_path / "secret"))
        with Triton(server.replica) as triton:
            triton.load("echo", 30)
            assert server.infer("echo") == 200


def test_a_secret_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_FILE, str(tmp_path / "missing"))
    with pytest.raises(TritonError, match=f"{SECRET_FILE}: .*missing cannot be read"):
        control_secret()
    (tmp_path / "missing").write_text("hush")
    with pytest.raises(TritonError, match="must hold KEY=SECRET"):
        control_secret()

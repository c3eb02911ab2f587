"""The local fleet's ports and slots, and the gateway's files, without a server."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tasks.config import Config
from tasks.fleets.envoy import Gateway
from tasks.fleets.envoy_resources import cluster, routes
from tasks.fleets.state import HOST, PORTS, State, StateError, choose_state, is_free, read_state, write_state


def config_of(**max_replicas: int) -> Config:
    return Config.model_validate(
        {
            "pools": {name: {"memory": "1GB", "max_replicas": count} for name, count in max_replicas.items()},
            "models": {"a": {"footprint": "1MB", "service_ms": 1}},
        }
    )


def test_every_slot_has_ports_of_its_own(tmp_path: Path) -> None:
    state = choose_state(tmp_path, config_of(small=3, large=2))
    assert [slot.name for slot in state.slots] == ["small-0", "small-1", "small-2", "large-0", "large-1"]
    assert len(state.ports) == 5 * 3 + 5  # three a slot, and gateway, its admin, Prometheus, Pushgateway, Prefect
    assert all(port in PORTS for port in state.ports)


def test_ports_are_chosen_once_also_when_a_pool_grows(tmp_path: Path) -> None:
    first = choose_state(tmp_path, config_of(small=1))
    write_state(first)
    grown = choose_state(tmp_path, config_of(small=2), keep=read_state(tmp_path))
    assert grown.slots[:1] == first.slots
    assert grown.port_by_service == first.port_by_service
    assert len(grown.ports - first.ports) == 3


def test_a_taken_port_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        assert not is_free(taken.getsockname()[1])


@pytest.mark.parametrize("content", ["", "{}", '{"ports": {}, "slots": [{"nome": 1}]}'])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "fleet.json").write_text(content)
    with pytest.raises(StateError, match=r"fleet.json cannot be read.*make up"):
        read_state(tmp_path)


def test_a_long_folder_keeps_its_socket_short(tmp_path: Path) -> None:
    short, long = (State(folder, {}, ()) for folder in (Path("/srv/fleet"), tmp_path / ("x" * 120)))
    assert short.supervisor_socket == Path("/srv/fleet/supervisor.sock")
    assert len(str(long.supervisor_socket)) < 100  # 107 bytes is Linux's limit
    assert long.supervisor_socket != State(tmp_path / ("y" * 120), {}, ()).supervisor_socket


def test_what_is_wanted_survives_in_the_folder(tmp_path: Path) -> None:
    state = State(tmp_path, {}, ())
    assert state.wanted() == frozenset()
    state.want("small-0")
    state.want("small-1")
    state.want_no_more("small-0")
    assert State(tmp_path, {}, ()).wanted() == {"small-1"}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_files_are_rewritten_only_when_they_change(tmp_path: Path) -> None:
    gateway = Gateway(choose_state(tmp_path, config_of(small=1)))
    gateway.write({"a": False, "b": True})
    path = tmp_path / "envoy" / "clusters.json"
    version, written = read(path)["version_info"], path.stat().st_ino
    gateway.write({"a": False, "b": True})
    assert path.stat().st_ino == written
    gateway.write({"a": False})
    assert read(path)["version_info"] != version
    assert gateway.endpoints() == {"a": {}, "b": {}}  # an endpoint file does no harm


def test_a_route_matches_a_whole_segment_and_only_a_cold_model_says_so() -> None:
    hot, cold = routes(["ab", "a"], ["a"])["virtual_hosts"][0]["routes"]
    assert hot["match"] == {"path_separated_prefix": "/v2/models/ab"}
    assert hot["response_headers_to_add"] == []
    assert [h["header"]["value"] for h in cold["response_headers_to_add"]] == ["a", "30"]
    # a reset in the middle may have run the inference: it is not sent again
    assert hot["route"]["retry_policy"]["retry_on"] == "connect-failure,reset-before-request"


def test_a_cluster_asks_the_model_itself_whether_it_is_ready() -> None:
    made = cluster("embed", Path("/e/embed.json"))
    assert made["health_checks"][0]["http_health_check"] == {"path": "/v2/models/embed/ready"}
    assert made["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}

"""Memory of GPUs that Triton reports: the least of what is known counts, and the pool says where it is not declared."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.observe.gpus import read_gpu_bytes, within_gpus
from tasks.world import Fleet, Pool, Replica
from tests.prometheus_server import prometheus_server

GB = 10**9
POOL = Pool("small", "l4", 24 * GB)


def replica(name: str, gb: int = 24, pool: str = "small", gpu_type: str = "l4") -> Replica:
    """``gb``: declared, or less by its node's label."""
    return Replica(name, pool, gpu_type, gb * GB, 1.0)


METRIC, LABEL = "nv_gpu_memory_total_bytes", "its node's nvidia.com/gpu.memory"


@pytest.mark.parametrize(
    ("replicas", "reported", "expected", "pool", "says"),
    [
        pytest.param([replica("a")], {}, {"a": 24}, 24, "", id="nothing reported: what is declared"),
        pytest.param([replica("a")], {"a": 25}, {"a": 24}, 24, "", id="more reported: what is declared"),
        pytest.param([replica("a")], {"a": 16}, {"a": 16}, 16, f"a has 16.00 GB by {METRIC}", id="less reported"),
        pytest.param([replica("a", 16)], {}, {"a": 16}, 16, f"a has 16.00 GB by {LABEL}", id="less by the label"),
        pytest.param([replica("a", 16)], {"a": 20}, {"a": 16}, 16, f"a has 16.00 GB by {LABEL}", id="the label least"),
        pytest.param([replica("a", 16)], {"a": 8}, {"a": 8}, 8, f"a has 8.00 GB by {METRIC}", id="the report is least"),
        pytest.param(
            [replica("a"), replica("b")], {"a": 16}, {"a": 16, "b": 16}, 16, f"a has 16.00 GB by {METRIC}",
            id="one that has not reported yet is as small as the others",
        ),
        pytest.param(
            [replica("a"), replica("b")], {"a": 16, "b": 20}, {"a": 16, "b": 20}, 16, f"a has 16.00 GB by {METRIC}",
            id="each its own, a new one the smallest",
        ),
        pytest.param(
            [replica("a"), replica("b", gpu_type="t4")], {"b": 16}, {"a": 24, "b": 24}, 24, "",
            id="another GPU than the pool's says nothing of the pool",
        ),
        pytest.param([replica("a", pool="gone")], {"a": 16}, {"a": 24}, 24, "", id="of no pool that is known"),
    ],
)  # fmt: skip
def test_the_least_of_what_is_known_counts(
    replicas: list[Replica], reported: dict[str, int], expected: dict[str, int], pool: int, says: str
) -> None:
    fleet = within_gpus(Fleet((), (POOL,), tuple(replicas), ()), {name: gb * GB for name, gb in reported.items()})
    assert {r.name: r.memory_bytes // GB for r in fleet.replicas} == expected
    assert fleet.pools[0].memory_bytes == pool * GB
    assert fleet.pools[0].detail == (
        f"24.00 GB declared, {says}: that counts; declare at most {pool * GB}" if says else ""
    )


@pytest.mark.servers
def test_the_gpus_of_a_replica_are_added_up(tmp_path: Path) -> None:
    """``c`` has a driver that cannot be asked."""
    now = time.time()
    by_series = {
        'replica="a",gpu_uuid="GPU-1"': 16 * GB,
        'replica="a",gpu_uuid="GPU-2"': 16 * GB,
        'replica="b",gpu_uuid="GPU-3"': 24 * GB,
        'replica="c",gpu_uuid="GPU-4"': 0,
    }
    samples = {f"nv_gpu_memory_total_bytes{{{labels}}}": {now - 10: float(v)} for labels, v in by_series.items()}
    with prometheus_server(tmp_path, samples) as url:
        assert read_gpu_bytes(url, now) == {"a": 32 * GB, "b": 24 * GB}


def test_no_prometheus_is_no_report() -> None:
    assert read_gpu_bytes("http://127.0.0.1:9", time.time()) == {}

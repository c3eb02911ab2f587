"""One writer: two ticks, a tick that dies, a lease that is taken away, an API server that restarts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tasks.fleets import FleetBusyError
from tasks.fleets.kubernetes.lease import NAME, Lease
from tests.fleets.kubernetes.cluster import Cluster, eventually

pytestmark = pytest.mark.kubernetes


def lease(cluster: Cluster, duration_s: float = 3.0) -> Lease:
    """As another process would have it, with shorter times."""
    return Lease(cluster.plane.api(cluster.namespace), duration_s, renew_s=0.5)


def holder(cluster: Cluster) -> str:
    found = cluster.api.get(cluster.api.path("coordination.k8s.io/v1", "leases", NAME))
    return str(found["spec"].get("holderIdentity"))


def test_of_two_ticks_one_acts(cluster: Cluster) -> None:
    first, second = cluster.fleet(), cluster.fleet()
    with first.exclusive(0):
        assert first.still_exclusive()
        assert not second.still_exclusive()
        with pytest.raises(FleetBusyError, match=r"lease test-\d+/triton-placement is held by"), second.exclusive(1):
            pass
    with second.exclusive(1):
        assert second.still_exclusive()


def test_of_many_that_start_at_once_one_acts_at_a_time(cluster: Cluster) -> None:
    acting: list[int] = []

    leases = [lease(cluster) for _ in range(5)]

    def act(number: int) -> int:
        with leases[number].held(30):
            acting.append(number)
            assert acting == [number]
            time.sleep(0.1)
            acting.remove(number)
        return number

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(act, range(5))) == list(range(5))


def test_a_holder_that_died_is_waited_for_as_long_as_its_lease_lasts(cluster: Cluster) -> None:
    dead = lease(cluster)
    dead._acquire(0)  # and no renewal
    began = time.monotonic()
    with lease(cluster).held(10):
        assert 3.0 <= time.monotonic() - began < 5.0
        assert not dead.is_held()


def test_a_holder_that_renews_is_not_pushed_aside(cluster: Cluster) -> None:
    with (
        lease(cluster, duration_s=1.5).held(0),
        pytest.raises(FleetBusyError),
        lease(cluster, duration_s=1.5).held(4),
    ):
        pass


def test_a_lease_taken_away_is_noticed_before_the_next_step(cluster: Cluster) -> None:
    mine = lease(cluster)
    with mine.held(0):
        assert mine.is_held()
        path = cluster.api.path("coordination.k8s.io/v1", "leases", NAME)
        cluster.api.patch(path, {"spec": {"holderIdentity": "somebody"}})
        assert not mine.is_held()
    assert holder(cluster) == "somebody"  # nor is it given back in their place


def test_a_lease_deleted_by_hand_is_lost(cluster: Cluster) -> None:
    mine = lease(cluster, duration_s=30)
    with mine.held(0), ExitStack() as other:
        cluster.delete("coordination.k8s.io/v1", "leases", NAME)
        assert not mine.is_held()
        other.enter_context(lease(cluster).held(0))
        assert not mine.is_held()


def test_a_restart_of_the_api_server_does_not_lose_it(cluster: Cluster) -> None:
    mine = lease(cluster, duration_s=30)
    with mine.held(0):
        cluster.plane.stop("kube-apiserver")
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(mine.is_held)  # waits for the answer
            cluster.plane.start_api_server()
            assert asked.result()
        eventually(mine.is_held)

"""The listener on a real API server: every change is told, whatever becomes of its connections."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tasks.fleets.kubernetes.api import Api, ApiError
from tasks.watch import listen
from tasks.watch.changes import Change
from tasks.watch.kubernetes import KubernetesSource
from tasks.watch.mirror import Mirror
from tests.fleets.kubernetes.cluster import Cluster, chart_rights, eventually, hpa
from tests.fleets.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.kubernetes

LISTENER = chart_rights("listener")


@contextmanager
def listening(cluster: Cluster, folder: Path, api: Api | None = None) -> Iterator[list[Change]]:
    """What a listener in a thread of its own tells."""
    found: list[Change] = []
    is_over = threading.Event()
    source = KubernetesSource(cluster.config("small"), api or cluster.plane.api(cluster.namespace))
    arguments = (source, found.extend, folder / "told.json", 60.0, is_over)
    thread = threading.Thread(target=listen, args=arguments, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        source.close()
        thread.join(10)


def told(found: Sequence[Change]) -> list[tuple[str, str]]:
    return [(change.event.removeprefix("triton."), change.subject) for change in found]


def filled(cluster: Cluster) -> str:
    """A pool ``small`` of one ready pod that carries ``echo``."""
    cluster.pool("small", 1)
    fleet = cluster.fleet()
    fleet.declare(cluster.config("small").domain_models())
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == ["ready"])
    (pod,) = cluster.pods()
    fleet.route("echo", pod)
    return pod


def test_an_hpa_that_scales_and_the_pod_that_it_brings_are_told(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubelet()
    pod = filled(cluster)
    with listening(cluster, tmp_path) as found:
        eventually(lambda: told(found) == [("replica.ready", pod)])
        hpa(cluster, at_least=2)
        eventually(lambda: len(cluster.fleet().replicas()) == 2, 30)
        (new,) = cluster.pods().keys() - {pod}
        eventually(lambda: ("replica.ready", new) in told(found))
        scaled = [change for change in found if change.event == "triton.pool.scaled"]
        assert any("New size: 2; reason: Current number of replicas below Spec.MinReplicas" in c.text for c in scaled)
        assert {change.subject for change in scaled} == {"small"}


def test_a_pod_that_is_lost_is_told_and_one_that_was_emptied_is_not(cluster: Cluster, tmp_path: Path) -> None:
    kubelet = cluster.kubelet()
    pod = filled(cluster)
    with listening(cluster, tmp_path) as found:
        eventually(lambda: bool(found))
        time.sleep(1)
        kubelet.crash(pod)
        eventually(lambda: ("replica.lost", pod) in told(found))
        kubelet.restart(pod)
        eventually(lambda: told(found)[-1] == ("replica.ready", pod))
        cluster.delete("v1", "pods", pod)
        eventually(lambda: told(found).count(("replica.lost", pod)) == 2)
        assert next(c.text for c in found if c.event.endswith("lost")).endswith("it carried echo")
        eventually(lambda: len(told(found)) == 5)  # its successor is ready
        (new,) = cluster.pods().keys() - {pod}
        assert ("replica.ready", new) in told(found)
        fleet = cluster.fleet()
        fleet.route("echo", new)
        fleet.unroute("echo", new)
        time.sleep(1)
        cluster.delete("v1", "pods", new)
        eventually(lambda: len(told(found)) == 6)
        assert told(found)[-1][0] == "replica.ready"


def test_changes_while_the_api_server_is_gone_are_told_once_it_is_back(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubelet()
    pod = filled(cluster)
    with listening(cluster, tmp_path) as found:
        eventually(lambda: told(found) == [("replica.ready", pod)])
        cluster.plane.stop("kube-apiserver")
        cluster.plane.start_api_server()
        cluster.fleet().scale_up("small", 2)
        eventually(lambda: len(found) >= 3, 40)
        assert sorted(event for event, _ in told(found)) == ["pool.scaled", "replica.ready", "replica.ready"], found


def test_a_version_that_is_too_old_is_followed_by_a_new_list(cluster: Cluster) -> None:
    cluster.kubelet()
    pod = filled(cluster)
    compact(cluster.plane)
    path = cluster.api.path("v1", "pods")
    with pytest.raises(ApiError) as gone:
        list(cluster.api.watch(path, "1", 5))
    assert gone.value.status == 410
    heard = threading.Event()
    mirror = Mirror(cluster.plane.api(cluster.namespace), path, heard.set)
    threading.Thread(target=mirror._follow, args=("1",), daemon=True).start()
    try:
        eventually(lambda: [item["metadata"]["name"] for item in mirror.items()] == [pod])
        heard.clear()
        cluster.label(pod, "a", "b")
        eventually(heard.is_set)
        eventually(lambda: mirror.items()[0]["metadata"]["labels"].get("a") == "b")
    finally:
        mirror.stop()


def compact(plane: ControlPlane) -> None:
    """Etcd forgets all that was before now."""
    etcd = f"http://127.0.0.1:{plane.etcd}/v3"
    status = requests.post(f"{etcd}/maintenance/status", json={}, timeout=5).json()
    body = {"revision": status["header"]["revision"], "physical": True}
    requests.post(f"{etcd}/kv/compaction", json=body, timeout=5).raise_for_status()


def test_what_the_chart_grants_the_listener_is_enough(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.kubelet()
    filled(cluster)
    api = cluster.plane.api(cluster.namespace, cluster.account(LISTENER))
    time.sleep(0.2)  # the API server learns of new roles by a watch
    with listening(cluster, tmp_path, api) as found:
        cluster.fleet().scale_up("small", 2)
        eventually(lambda: len(found) == 3)
    assert not re.search("403", caplog.text)


@pytest.mark.parametrize(("resource", "verb"), [(resource, verb) for _, resource, verbs in LISTENER for verb in verbs])
def test_one_verb_less_is_not_enough_for_the_listener_and_is_named(
    cluster: Cluster, tmp_path: Path, resource: str, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the right to list it does not start; without the right to watch it lists again and again, and says so."""
    less = [(group, r, [v for v in verbs if (r, v) != (resource, verb)]) for group, r, verbs in LISTENER]
    api = cluster.plane.api(cluster.namespace, cluster.account(less))
    time.sleep(0.2)
    wanted = f"grants '{verb}' on '{resource}'"
    if verb == "list":
        with pytest.raises(ApiError, match=wanted):
            KubernetesSource(cluster.config("small"), api)
        return
    with listening(cluster, tmp_path, api):
        eventually(lambda: wanted in caplog.text)

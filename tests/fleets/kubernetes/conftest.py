"""A control plane for the session, and for each test a namespace of its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.fleets.kubernetes.api import Api
from tasks.fleets.kubernetes.call import Call
from tests.fleets.kubernetes.cluster import Cluster
from tests.fleets.kubernetes.control_plane import ControlPlane, control_plane, missing
from tests.fleets.kubernetes.kubelet import NODES, create_node
from tests.fleets.kubernetes.network import own_network
from tests.fleets.kubernetes.stage import Stage
from tests.prometheus_server import Samples, prometheus_server

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def pod_network() -> Iterator[str]:
    """Everything of this package runs in a network where pods have addresses. Empty, or why it cannot."""
    with ExitStack() as stack:
        try:
            stack.enter_context(own_network())
        except OSError as error:
            yield f"pods cannot have addresses here ({error}): run as root, or the whole command under `unshare -rn`"
        else:
            yield ""


@pytest.fixture(scope="package")
def plane(tmp_path_factory: pytest.TempPathFactory, pod_network: str) -> Iterator[ControlPlane]:
    if (why := missing()) is not None:
        pytest.skip(why)
    with control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        for node in NODES:
            create_node(running.api("default"), node)
        install_gateway_api(running.api("default"))
        yield running


def install_gateway_api(api: Api) -> None:
    """HTTPRoutes as a cluster with a Gateway API has them, without the checks of their fields."""
    any_fields = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": any_fields}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute", "listKind": "HTTPRouteList"}
    group = "gateway.networking.k8s.io"
    # a group that is Kubernetes' own asks for the word of its reviewers
    approval = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"}
    metadata = {"name": f"httproutes.{group}", "annotations": approval}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    api.call(Call("POST", path, body={"metadata": metadata, "spec": spec}))


@pytest.fixture
def cluster(plane: ControlPlane) -> Iterator[Cluster]:
    """An empty namespace."""
    with ExitStack() as stack:
        yield Cluster(plane, f"test-{next(_numbers)}", stack)


@pytest.fixture(scope="module")
def prometheus(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), demand(time.time())) as url:
        yield url


def demand(now: float) -> Samples:
    """``asked``: each model but ``slow`` and ``broken`` once a second, from ten minutes ago until in ten minutes.
    ``asked_once_total``: the same as a counter that nobody has scraped for a minute."""
    rps_by_model = {"echo": 1.0, "other": 1.0, "slow": 0.0, "broken": 0.0}
    asked = {
        f'asked{{model="{model}"}}': {now + at: rps for at in range(-600, 600, 5)}
        for model, rps in rps_by_model.items()
    }
    once = {
        f'asked_once_total{{model="{model}"}}': {now + at: (600 + at) * rps for at in range(-600, -60, 5)}
        for model, rps in rps_by_model.items()
    }
    return asked | once


@pytest.fixture
def stage(cluster: Cluster, prometheus: str, pod_network: str, tmp_path: Path) -> Stage:
    if pod_network:
        pytest.skip(pod_network)
    return Stage(cluster, tmp_path, prometheus)

"""A control plane for the session, and for each test a namespace of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fleets.kubernetes.cluster import Cluster
from tests.fleets.kubernetes.control_plane import ControlPlane, control_plane, missing
from tests.fleets.kubernetes.kubelet import create_nodes

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if (why := missing()) is not None:
        pytest.skip(why)
    with control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        create_nodes(running.api("default"))
        yield running


@pytest.fixture
def cluster(plane: ControlPlane) -> Iterator[Cluster]:
    """An empty namespace."""
    with ExitStack() as stack:
        yield Cluster(plane, f"test-{next(_numbers)}", stack)

"""Servers that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local_fleet import RunningFleet, running_fleet


@pytest.fixture(scope="session")
def local_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A fleet without Prefect, for tests that leave it as they found it: one empty replica, small-0."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet

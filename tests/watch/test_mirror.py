"""A mirror that nobody follows any more is not taken for a fleet that does not change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tasks.fleets.kubernetes.api import Api
from tasks.watch.mirror import Mirror


class Garbled:
    """An API server whose watch tells of an object that has no metadata."""

    def items_and_version(self, path: str) -> tuple[list[dict[str, Any]], str]:
        return [{"metadata": {"name": "a"}}], "1"

    def watch(self, path: str, version: str, seconds: float) -> Iterator[dict[str, Any]]:
        yield {"type": "ADDED", "object": {}}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_nobody_follows_any_more_is_not_told_as_unchanged() -> None:
    mirror = Mirror(cast(Api, Garbled()), "/api/v1/pods", lambda: None)
    mirror.start()
    for thread in threading.enumerate():
        if thread.name == "watch-pods":
            thread.join(5)
    with pytest.raises(RuntimeError, match="/api/v1/pods is not followed any more"):
        mirror.items()

"""The binary requests against a real Triton."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infra.load import Profile, Segment, run
from tasks.clients.triton import Triton
from tests.triton_server import triton_server

pytestmark = pytest.mark.servers


def test_triton_understands_them_and_a_model_that_is_not_loaded_is_a_failure(tmp_path: Path) -> None:
    segments = tuple(Segment(model, 0.0, 1.0, 20.0, 20.0) for model in ("echo", "other"))
    with triton_server(tmp_path) as server:
        with Triton(server.replica) as client:
            client.load("echo", timeout_s=30)
        report = asyncio.run(run(Profile("p", 1.0, segments, spacing="even"), f"http://{server.replica.http}"))
    echo, other = report.models
    assert (echo.sent, echo.succeeded) == (20, 20), report.failures
    assert other.failed_by_cause in ({"http 400": 20}, {"http 404": 20})

"""Profiling on a local fleet of real servers: what is measured, and that nothing which serves is touched."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.profile import profile
from tasks.catalogue import read_catalogue
from tasks.config import read_config
from tasks.profile import profile_models
from tests.local_fleet import CONFIG, running_fleet


@pytest.mark.servers
def test_profile_of_a_local_fleet(tmp_path: Path) -> None:
    """``vad`` is paced to 10 ms, ``ocr_cls`` declares no number at all, ``filetype`` is broken by its repository."""
    models = {
        "vad": {"service_ms": 10, "queue_ms": 50},
        "ocr_cls": {"queue_ms": 50},
        "filetype": {"service_ms": 25, "queue_ms": 50},
    }
    pools = {"small": {"memory": "700MB", "max_replicas": 2, "start_s": 3}}
    with running_fleet(tmp_path, {**CONFIG, "pools": pools, "models": models, "catalogue": "catalogue.yaml"}) as fleet:
        # small-0 serves: what is measured is measured in small-1, which comes for it and goes
        fleet.load("vad", "small-0")
        fleet.live.route("vad", "small-0")
        weights = fleet.live.state.folder / "repository" / "filetype" / "1" / "model.py"
        weights.chmod(0o644)
        weights.write_text("raise RuntimeError('no weights')")
        statuses: list[int] = []
        is_over = Event()

        def ask() -> None:
            while not is_over.wait(0.02):
                statuses.append(fleet.ask("vad").status_code)

        client = Thread(target=ask)
        client.start()
        with prefect_test_harness():
            state = profile(str(fleet.config_path), return_state=True)
        is_over.set()
        client.join()
        assert set(statuses) == {200}
        assert [replica.name for replica in fleet.live.replicas()] == ["small-0"]
        assert state.message == "2 measured, 1 could not be; catalogue catalogue.yaml written"
        catalogue = read_catalogue(tmp_path / "catalogue.yaml")
        vad, ocr_cls = (catalogue.entry(model, "small") for model in ("vad", "ocr_cls"))
        for entry in (vad, ocr_cls):
            assert entry.footprint_bytes is not None
            # a Python process with onnxruntime is 35 MB, their weights are a few
            assert 30e6 < entry.footprint_bytes.value < 90e6
            assert entry.footprint_bytes.spread < 10e6
            assert entry.load_s is not None
            assert 0.05 < entry.load_s.value < 10
        assert vad.service_ms is not None
        assert vad.service_ms.value == pytest.approx(11.3, abs=1.8)
        assert not catalogue.entry("filetype", "small").model_dump(exclude_none=True)
        # what was measured is now what a tick sizes with: only the broken model is still unknown
        known = {model.name: model for model in read_config(fleet.config_path, has_needs=False).domain_models()}
        assert known["ocr_cls"].need_by_gpu_type["small"].source == "measured"
        assert not known["filetype"].need_by_gpu_type


@pytest.mark.servers
def test_a_pool_without_a_spare_replica_is_told_and_left_alone(tmp_path: Path) -> None:
    pools = {"small": {"memory": "700MB", "max_replicas": 1, "start_s": 3}}
    with running_fleet(tmp_path, {**CONFIG, "pools": pools}) as fleet:
        fleet.load("vad", "small-0")
        profiles = profile_models(fleet.config, fleet.live, ["vad", "filetype"], wait_s=1)
        assert profiles.measured == ()
        assert profiles.failures == (
            "filetype in pool small: each of its 1 replicas serves, and it may have no more: raise max_replicas",
            "vad in pool small: each of its 1 replicas serves, and it may have no more: raise max_replicas",
        )
        assert [replica.name for replica in fleet.live.replicas()] == ["small-0"]

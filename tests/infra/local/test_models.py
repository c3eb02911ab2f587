"""The model repository: what is written, what is left alone, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.models import SOURCES, RepositoryError, build, model_config
from tasks.config import Config, read_config

PLACEMENT = Path("infra/local/placement.yaml")


def config_of(*models: str, service_ms: float = 10) -> Config:
    section = {"footprint": "80MB", "service_ms": service_ms}
    return Config.model_validate({"pools": {"small": {"memory": "1GB"}}, "models": dict.fromkeys(models, section)})


def site_packages(folder: Path) -> Path:
    for source in SOURCES.values():
        (folder / source.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / source.file).write_bytes(b"weights")
    return folder


def test_every_model_of_the_demo_has_a_file_in_a_wheel() -> None:
    assert set(read_config(PLACEMENT).models) <= set(SOURCES)


def test_a_model_that_has_not_changed_keeps_its_files_and_one_that_has_does_not(tmp_path: Path) -> None:
    wheels, state = site_packages(tmp_path / "wheels"), tmp_path / "state"
    state.mkdir()
    repository = build(config_of("vad", "embed"), wheels, state)
    before = (repository / "vad").stat().st_mtime_ns
    build(config_of("vad", "embed"), wheels, state)
    assert (repository / "vad").stat().st_mtime_ns == before  # else a loaded copy would be loaded again
    build(config_of("vad", service_ms=20), wheels, state)
    assert (repository / "vad").stat().st_mtime_ns != before
    assert [folder.name for folder in repository.iterdir()] == ["vad"]  # what is configured no more is gone
    assert oct((repository / "vad" / "1" / "model.onnx").stat().st_mode)[-3:] == "444"


def test_a_model_without_a_wheel_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"no wheel carries llama; there are: vad, .*Rename"):
        build(config_of("llama"), tmp_path, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"silero_vad.onnx is missing.*make install"):
        build(config_of("vad"), tmp_path, tmp_path)


def test_a_warm_up_names_every_input_and_only_those_a_client_sends() -> None:
    text = model_config("vad", 12.5, 2, Path("/pace"))
    assert text.count("TYPE_FP32 dims: [1, 576]") == 2  # once as input, once in the warm-up
    assert '"sr"' not in text.split("constants")[0]  # the sampling rate is a constant
    assert 'key: "service_ms" value: { string_value: "12.5" }' in text
    assert "instance_group { count: 2 kind: KIND_CPU }" in text

"""The catalogue: what is declared goes before what was measured, and what neither knows is named."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.replay import edited
from tasks.catalogue import Catalogue, CatalogueError, Entry, Number, read_catalogue, write_catalogue
from tasks.config import ConfigError, read_config
from tasks.world import Need

TODAY = datetime.date(2026, 1, 31)


def number(value: float, spread: float = 0.0) -> Number:
    return Number(value=value, source="measured", date=TODAY, spread=spread)


MEASURED = Entry(
    footprint_bytes=number(73e6, 1e6), service_ms=number(11.4, 0.2), service_cv2=number(0.3), load_s=number(1.5)
)


BOTH: dict[str, Any] = {"source": "measured", "footprint_source": "measured"}


def needs_of(tmp_path: Path, entry: Entry | None, **declared: Any) -> dict[str, Need]:
    """Needs of model ``m``, which may live in the pools small and large; the catalogue knows it on small."""
    path = tmp_path / "placement.yaml"
    config = {
        "catalogue": "catalogue.yaml",
        "pools": {"small": {"memory": "1GB"}, "large": {"memory": "2GB"}},
        "models": {"m": {"pools": ["small"], **declared}},
    }
    path.write_text(yaml.safe_dump(config))
    if entry is not None:
        write_catalogue(tmp_path / "catalogue.yaml", Catalogue().with_entry("m", "small", entry))
    (model,) = read_config(path).domain_models()
    return dict(model.need_by_gpu_type)


@pytest.mark.parametrize(
    ("name", "entry", "declared", "need"),
    [
        # room is kept for two spreads: 73 + 2 * 1 MB
        ("all measured", MEASURED, {}, Need(75_000_000, 11.4, 0.3, 1, 1.5, **BOTH, footprint_seen=(73e6, 1e6))),
        ("a declared number goes first", MEASURED, {"service_ms": 20, "load_s": 3},
         Need(75_000_000, 20, 0.3, 1, 3, footprint_source="measured", footprint_seen=(73e6, 1e6))),
        ("also on one GPU type", MEASURED, {"on": {"small": {"footprint": "9MB"}}},
         Need(9_000_000, 11.4, 0.3, 1, 1.5, source="measured")),
        ("variability and load time need not be known", Entry(footprint_bytes=number(5e6), service_ms=number(7)), {},
         Need(5_000_000, 7, 0.0, 1, 5.0, **BOTH, footprint_seen=(5e6, 0.0))),
        ("no catalogue yet, all declared", None, {"footprint": "80MB", "service_ms": 10}, Need(80_000_000, 10)),
    ],
)  # fmt: skip
def test_declared_before_measured(
    tmp_path: Path, name: str, entry: Entry | None, declared: dict[str, Any], need: Need
) -> None:
    assert needs_of(tmp_path, entry, **declared)["small"] == need


@pytest.mark.parametrize(
    ("name", "entry", "declared"),
    [
        ("no catalogue yet, nothing declared", None, {}),
        ("no footprint", Entry(service_ms=number(7)), {}),
        ("no service time", None, {"footprint": "80MB"}),
        ("known on another GPU type only", MEASURED, {"pools": ["large"]}),
    ],
)
def test_what_neither_knows_is_named(tmp_path: Path, name: str, entry: Entry | None, declared: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"models\.m: footprint and service_ms on GPU type .* catalogue\.yaml"):
        needs_of(tmp_path, entry, **declared)


def test_a_model_that_is_yet_to_be_profiled_can_be_read_for_that(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        needs_of(tmp_path, None)
    (model,) = read_config(tmp_path / "placement.yaml", has_needs=False).domain_models()
    assert not any(model.may_live_in(pool) for pool in read_config("infra/local/placement.yaml").domain_pools())


def test_an_edited_configuration_keeps_its_catalogue_and_declares_no_more(tmp_path: Path) -> None:
    needs = needs_of(tmp_path, MEASURED, service_ms=20)
    changed = edited(read_config(tmp_path / "placement.yaml"), 77.0, None, None)
    (model,) = changed.domain_models()
    assert (dict(model.need_by_gpu_type), model.objective.queue_ms) == (needs, 77.0)


def test_a_new_measurement_replaces_numbers_and_keeps_what_it_lacks(tmp_path: Path) -> None:
    catalogue = Catalogue().with_entry("m", "small", MEASURED).with_entry("n", "small", MEASURED)
    catalogue = catalogue.with_entry("m", "small", Entry(service_ms=number(22.8)))
    write_catalogue(tmp_path / "catalogue.yaml", catalogue)
    entry = read_catalogue(tmp_path / "catalogue.yaml").entry("m", "small")
    assert (entry.service_ms, entry.footprint_bytes) == (number(22.8), MEASURED.footprint_bytes)
    assert read_catalogue(tmp_path / "catalogue.yaml").entry("n", "small") == MEASURED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2", "version: Input should be 1"),
        ("models: {m: {small: {service_ms: {value: -1, source: measured, date: 2026-01-31}}}}", "service_ms.value"),
        ("models: {m: {small: {service_ms: {value: 1, source: guessed, date: 2026-01-31}}}}", "'declared', 'measured'"),
        ("models: [", "not YAML"),
    ],
)
def test_what_is_wrong_in_it_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "catalogue.yaml").write_text(text)
    with pytest.raises(CatalogueError, match=says):
        read_catalogue(tmp_path / "catalogue.yaml")

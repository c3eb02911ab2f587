"""The configuration: what is good is read, what is wrong is named with its place and what is allowed."""

import json
from pathlib import Path

import pytest

from tasks.config import ConfigError, read_config, schema

LOCAL = Path("infra/local/placement.yaml")


def test_local_configuration_becomes_models_and_pools() -> None:
    config = read_config(LOCAL)
    assert sum(pool.max_replicas for pool in config.domain_pools()) == 6
    vgg19 = {model.name: model for model in config.domain_models()}["vgg19"]
    assert vgg19.min_copies == 0
    assert vgg19.pools == frozenset({"large"})
    assert vgg19.need_by_gpu_type["large"].footprint_bytes == 620_000_000


def test_schema_in_the_repository_is_the_code() -> None:
    assert Path("infra/config.schema.json").read_text() == schema(), "run: make schema"


def test_the_schema_tells_what_each_key_means() -> None:
    whole = json.loads(schema())
    sections = {"(top)": whole, **whole["$defs"]}
    keys = {f"{name}.{key}": said for name, section in sections.items() for key, said in section["properties"].items()}
    assert [key for key, said in keys.items() if not said.get("description")] == []
    assert len(keys) > 50


@pytest.mark.parametrize(
    ("find", "put", "says"),
    [
        ("budget: 6", "budgt: 6", "limits.budgt: Extra inputs are not permitted; allowed: interval_s, budget"),
        ("budget: 6", "budget: 0", "limits.budget: Input should be greater than or equal to 1"),
        ("pools: [large]", "pools: [huge]", "models.vgg19 names pool huge; there are: large, small"),
        ("max_replicas: 4", "max_replicas: 0", "max_replicas 0 is below min_replicas 1"),
        ("idle_s: 120", "idle_s: 3600", "models.vgg19.idle_s 3600 is more than metrics.history_s 1800"),
        ("vad: ", "../vad: ", "should match pattern"),
        ("footprint: 620MB", "footprint: many", "models.vgg19.footprint: could not parse value"),
        ("limits: {", "limits: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, find: str, put: str, says: str) -> None:
    text = LOCAL.read_text()
    assert find in text
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace(find, put, 1))
    with pytest.raises(ConfigError) as error:
        read_config(wrong)
    assert says in str(error.value)

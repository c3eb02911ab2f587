"""Every value set lints, renders, and gives manifests that are strictly valid on each Kubernetes that is supported."""

from __future__ import annotations

from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

from infra.helm.values import schema
from tasks.config import read_config
from tests.infra.chart.rendering import CHART, NAMES, release, rendered, values

KUBERNETES = ("1.30", "1.33", "1.36", "1.37")
OF_THE_OPERATOR: dict[str, Any] = {"PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule}


def test_there_are_at_least_five_value_sets() -> None:
    assert len(NAMES) >= 5


def test_the_committed_schema_is_the_generated_one() -> None:
    assert (CHART / "values.schema.json").read_text() == schema(), (
        "run: python -m infra.helm.values > infra/helm/triton-placement/values.schema.json"
    )


@pytest.mark.parametrize("name", NAMES)
def test_helm_lint_finds_nothing(name: str) -> None:
    report = helm.lint(CHART, values(name), strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", NAMES)
def test_manifests_are_strictly_valid(name: str, version: str) -> None:
    for item in release(name).items:
        if item["kind"] not in OF_THE_OPERATOR:
            kubernetes_validate.validate(item, version, strict=True)


def test_strict_validation_would_find_a_field_that_does_not_exist() -> None:
    deployment = release("kind-cpu").one("Deployment", "demo-small")
    broken = deployment | {"spec": deployment["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(broken, "1.36", strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_operators_objects_keep_every_field(name: str) -> None:
    """The models of the operator's CRDs drop what they do not know: all of it must come back."""
    for item in release(name).items:
        if model := OF_THE_OPERATOR.get(item["kind"]):
            kept = model.model_validate(item).model_dump(by_alias=True, exclude_unset=True, mode="json")
            assert kept == item


@pytest.mark.parametrize("name", NAMES)
def test_no_two_objects_have_the_same_name(name: str) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in release(name).items]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_in_the_config_map_is_one_that_the_flows_take(name: str, tmp_path: Any) -> None:
    path = tmp_path / "placement.yaml"
    path.write_text(release(name).one("ConfigMap", "demo-config")["data"]["placement.yaml"])
    config = read_config(path)
    assert set(config.pools) == set(values(name)["placement"]["pools"])
    assert config.fleet.kind == "kubernetes"
    assert config.metrics.pushgateway_url
    assert {f"demo-{pool}" for pool in config.pools} == set(release(name).replicas())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing given": ({}, "minProperties"),
    "no image of the flows": ({"image": {"repository": ""}}, "image/repository.*minLength"),
    "a key misspelt": ({"listner": {"enabled": False}}, "listner"),
    "a key of the configuration misspelt": ({"placement": {"limits": {"budgets": 3}}}, "budgets"),
    "two repositories": ({"triton": {"repository": {"objectStore": {"url": "s3://a/b"}}}}, "repository"),
    "no such object store": ({"triton": {"repository": {"claim": None, "objectStore": {"url": "ftp://a"}}}}, "url"),
    "settings of a pool that is not placed": ({"pools": {"typo": {"gpus": 2}}}, "pools.typo.*has: t4"),
    "a pool whose name is no name of a Deployment": (
        {"placement": {"pools": {"H100_SXM": {"memory": "78GiB"}}}},
        "H100_SXM.*lower-case",
    ),
    "no Prometheus": ({"placement": {"metrics": {"prometheus_url": None}}}, "prometheus_url"),
    "no Pushgateway at all": ({"placement": {"metrics": {"pushgateway_url": None}}}, "pushgateway.enabled is false"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str) -> None:
    change, named = WRONG[case]
    own = {} if case == "nothing given" else _merged(values("no-operator"), change)
    with pytest.raises((helm.HelmValuesError, helm.HelmRenderError), match=named):
        rendered(own)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    mixed = {key: _merged(base[key], v) if isinstance(base.get(key), dict) and v else v for key, v in over.items()}
    return base | mixed


def test_default_values_are_documented_by_the_schema() -> None:
    default = yaml.safe_load((CHART / "values.yaml").read_text())
    with helm.Chart.load(CHART) as chart:
        properties = (chart.schema or {})["properties"]
    assert set(default) <= set(properties)

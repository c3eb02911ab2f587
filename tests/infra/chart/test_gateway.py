"""How demand is read at a gateway: its proxies' clusters get the models' names, and the queries find them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.config import Config
from tasks.fleets.kubernetes.names import service_name
from tasks.observe.series import covered
from tests.infra.chart.rendering import CHART, NAMES, notes, rendered, values
from tests.infra.grafana.queries import metrics_in, of_the_rules

MODELS = ("vad", "a", "a--b", "ocr_det", "Embed", "llm.v2-7b", "x" * 57, "x" * 58, "Y" * 100)
EXAMPLES = ("grpc", "istio")


def relabelings(own: dict[str, Any]) -> list[dict[str, Any]]:
    """What the PodMonitor of the gateway's proxies does with each sample."""
    monitor = rendered(own).one("PodMonitor", "demo-gateway")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    found: list[dict[str, Any]] = endpoint["metricRelabelings"]
    return found


def renamed(cluster: str, rules: list[dict[str, Any]]) -> str:
    """As Prometheus replaces: an expression that does not match the whole label changes nothing."""
    for rule in rules:
        if rule.get("targetLabel") and (match := re.fullmatch(rule["regex"], cluster)):
            cluster = match.expand(rule.get("replacement", "$1").replace("$1", r"\1"))
    return cluster


def with_models(*models: str, **gateway: str) -> dict[str, Any]:
    own = values("kind-cpu")
    own["placement"]["models"] = {model: {"footprint": "80MB", "service_ms": 10} for model in models}
    own["monitoring"]["gateway"] |= gateway
    return own


@pytest.mark.parametrize(
    ("pattern", "cluster"),
    [
        ({}, "httproute/triton/{}/rule/0"),
        ({"cluster": "{namespace}_{service}_8000"}, "triton_{}_8000"),
        (
            {"cluster": "outbound[|]8000[|]{2}{service}[.]{namespace}[.]svc[.].*"},
            "outbound|8000||{}.triton.svc.cluster.local",
        ),
    ],
    ids=["Envoy Gateway", "Contour", "Istio"],
)
def test_a_cluster_gets_the_name_of_its_model(pattern: dict[str, str], cluster: str) -> None:
    """Those too whose Service could not have their name: ``model--ocr-det-0adb773b1247``."""
    rules = relabelings(with_models(*MODELS, **pattern))
    assert [renamed(cluster.format(service_name(model)), rules) for model in MODELS] == list(MODELS)


def test_other_clusters_keep_their_names() -> None:
    rules = relabelings(with_models(*MODELS))
    for other in ("xds_cluster", "httproute/other/model-vad/rule/0", "httproute/triton/shop/rule/0"):
        assert renamed(other, rules) == other


def test_what_is_asked_of_the_gateway_is_kept() -> None:
    rules = relabelings(values("kind-cpu"))
    (kept,) = (rule["regex"] for rule in rules if rule.get("action") == "keep")
    metrics = Config.model_fields["metrics"].default
    asked = [metrics.demand_query.replace("{window}", "30s"), metrics.unserved_query, *of_the_rules().values()]
    names = {name for query in asked for name in metrics_in(query) if name.startswith("envoy_")}
    assert len(names) == 4
    assert [name for name in names if not re.fullmatch(kept, name)] == []


def test_without_a_namespace_nobodys_proxies_are_scraped() -> None:
    own = values("kind-cpu")
    del own["monitoring"]["gateway"]
    assert "demo-gateway" not in {item["metadata"]["name"] for item in rendered(own).of("PodMonitor")}


@pytest.mark.parametrize(
    ("at_least", "gateway", "is_warned"),
    [
        (0, {}, True),
        (1, {}, False),
        (0, {"cluster": "{namespace}_{service}_8000"}, False),
        (0, {"namespace": ""}, False),
    ],
    ids=["at zero behind Envoy Gateway", "never at zero", "a gateway that counts", "one that the chart does not know"],
)
def test_who_could_not_be_woken_is_told(at_least: int, gateway: dict[str, str], is_warned: bool) -> None:
    own = with_models("ocr_det", "vad", **gateway)
    own["placement"]["models"]["ocr_det"]["min_copies"] = at_least
    assert ("at zero: ocr_det." in notes(own)) is is_warned


@pytest.mark.parametrize(
    ("monitoring", "metrics", "is_warned"),
    [
        ({"gateway": {"namespace": "gateway"}}, {}, False),
        ({}, {}, True),
        ({"gateway": {"namespace": "gateway"}, "scrape": "annotations"}, {}, True),
        ({}, {"demand_query": "sum by (model) (rate(requests[{window}]))"}, False),
    ],
    ids=["a gateway is scraped", "none is", "no operator that would scrape it", "asked for elsewhere"],
)
def test_that_nothing_counts_demand_is_told(monitoring: Any, metrics: dict[str, str], is_warned: bool) -> None:
    own = values("kind-cpu") | {"monitoring": monitoring}
    own["placement"]["metrics"] |= metrics
    assert ("Nothing here counts demand" in notes(own)) is is_warned


def queries() -> dict[str, str]:
    """Every query that a value set, or an example of values, makes the flows ask, as it is asked."""
    sections = {name: values(name)["placement"].get("metrics", {}) for name in NAMES}
    for name in EXAMPLES:
        own = yaml.safe_load((CHART / "examples" / f"{name}-values.yaml").read_text())
        sections[name] = own["placement"]["metrics"]
    found = {}
    for name, section in sections.items():
        metrics = Config.model_fields["metrics"].default.model_copy(update=section)
        found[f"{name} demand"] = covered(metrics.demand_query, metrics.window_s)
        found[f"{name} unserved"] = metrics.unserved_query
    return found


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_every_query_can_be_asked(tmp_path: Path) -> None:
    rules = [{"record": f"asked:query{i}", "expr": query} for i, query in enumerate(queries().values())]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout

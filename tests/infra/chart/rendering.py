"""The chart, rendered by Helm's own engine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

CHART = Path(__file__).parents[3] / "infra" / "helm" / "triton-placement"
VALUES_BY_NAME = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
NAMES = tuple(VALUES_BY_NAME)


def values(name: str) -> dict[str, Any]:
    """A value set of the chart's ``ci`` folder."""
    found: dict[str, Any] = yaml.safe_load(VALUES_BY_NAME[name].read_text())
    return found


def rendered(own: dict[str, Any]) -> Objects:
    """Every object of the release ``demo`` in the namespace ``triton``."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(own)
        templates = chart.render(own, name="demo", namespace="triton")
    texts = [text for path, text in sorted(templates.items()) if path.endswith(".yaml")]
    return Objects([item for text in texts for item in yaml.safe_load_all(text) if item])


def notes(own: dict[str, Any]) -> str:
    """What Helm says after an install."""
    with helm.Chart.load(CHART) as chart:
        text: str = chart.render(own, name="demo", namespace="triton")["triton-placement/templates/NOTES.txt"]
    return text


def example(name: str) -> dict[str, Any]:
    """A file of the chart's ``examples`` folder."""
    found: dict[str, Any] = yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text())
    return found


@cache
def release(name: str) -> Objects:
    """A value set of the ``ci`` folder, rendered."""
    return rendered(values(name))


@dataclass(frozen=True)
class Objects:
    """Rendered objects."""

    items: list[dict[str, Any]]

    def of(self, kind: str, name: str = "") -> list[dict[str, Any]]:
        return [o for o in self.items if o["kind"] == kind and name in ("", o["metadata"]["name"])]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        found = self.of(kind, name)
        assert len(found) == 1, (
            f"{len(found)} {kind} {name}; there are {[o['metadata']['name'] for o in self.of(kind)]}"
        )
        return found[0]

    def pods(self) -> dict[str, dict[str, Any]]:
        """Pod templates by the name of what makes them."""
        makers = [*self.of("Deployment"), *self.of("Job")]
        return {o["metadata"]["name"]: o["spec"]["template"] for o in makers}

    def endpoint(self, monitor: str) -> dict[str, Any]:
        """What a PodMonitor scrapes and how, in Prometheus' own words: the Operator writes them in snake case."""
        (found,) = self.one("PodMonitor", monitor)["spec"]["podMetricsEndpoints"]
        return {
            key: [{re.sub("(?=[A-Z])", "_", k).lower(): v for k, v in rule.items()} for rule in value]
            if key.endswith("elabelings")
            else value
            for key, value in found.items()
        }

    def register(self) -> dict[str, Any]:
        """The Job that registers the flows; its name tells what it runs."""
        (job,) = self.of("Job")
        return job

    def replicas(self) -> dict[str, dict[str, Any]]:
        """Pod templates of the Triton pools."""
        found = self.pods()
        component = "app.kubernetes.io/component"
        return {name: pod for name, pod in found.items() if pod["metadata"]["labels"][component] == "triton"}

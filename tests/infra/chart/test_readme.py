"""What the READMEs tell people to type fits what there is."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path

import helm_python as helm
import pytest
import yaml

from tasks.fleets.kubernetes.lease import NAME as LEASE
from tasks.fleets.kubernetes.routing import MANAGED
from tests.infra.chart.rendering import CHART, notes, rendered, values

README = (CHART / "README.md").read_text()
WALKTHROUGH = (CHART.parents[1] / "README.md").read_text()
UNINSTALL = README.split("## Uninstall")[1]


def test_an_uninstall_names_everything_that_is_left() -> None:
    """Helm leaves what ticks made and what it is told to keep; Prefect what the Job registered."""
    assert f"delete services,httproutes -l {MANAGED}" in UNINSTALL
    assert f"delete lease {LEASE}" in UNINSTALL
    kept = [
        o
        for o in rendered(values("kind-cpu")).items
        if "helm.sh/resource-policy" in o["metadata"].get("annotations", {})
    ]
    assert [f"{o['kind']} {o['metadata']['name']}" for o in kept] == ["PersistentVolumeClaim demo-catalogue"]
    assert "delete pvc triton-catalogue" in UNINSTALL
    deployments = yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]
    flows = {f"{Path(d['entrypoint'].split(':')[0]).stem}/{d['name']}" for d in deployments} - {"reconcile/local"}
    (listed,) = re.findall(r"for name in (.+?); do", UNINSTALL)
    assert set(listed.split()) == flows
    automation = yaml.safe_load((CHART / "files" / "heartbeat.yaml").read_text())["name"]
    assert f'automation delete "{automation}"' in UNINSTALL
    assert f"work-pool delete {yaml.safe_load((CHART / 'values.yaml').read_text())['prefect']['workPool']}" in UNINSTALL


@pytest.mark.parametrize("name", ["kind-cpu", "gpu-objectstore"])
def test_the_walkthroughs_values_fit_what_it_installs(name: str) -> None:
    """Its gateway carries the models' routes and counts their requests; its Prometheus is asked; the image is built."""
    own = values(name)
    gateway, image = own["placement"]["fleet"]["gateway"], own["image"]
    assert f"metadata: {{name: {gateway['name']}, namespace: {gateway['namespace']}}}" in WALKTHROUGH
    assert own["monitoring"]["gateway"]["namespace"] == gateway["namespace"]
    assert f"svc/{own['placement']['metrics']['prometheus_url'].split('//')[1].split('.')[0]} " in WALKTHROUGH
    assert f"{image['repository']}:{image['tag']}\n" in WALKTHROUGH.replace(" .\n", "\n")
    assert "Nothing here counts demand" not in notes(own)
    assert "at zero" not in notes(own)


def test_every_value_that_must_be_given_is_named() -> None:
    (sentence,) = re.findall(r"Five values have no default: (.+?) is asked for", README, re.DOTALL)
    named = re.findall(r"`(\w+(?:\.\w+)+)`", sentence)
    assert len(named) == 6
    for path in named:
        own = values("gpu-objectstore")
        *sections, key = path.split(".")
        del reduce(lambda section, name: section[name], sections, own)[key]
        with pytest.raises((helm.HelmValuesError, helm.HelmRenderError), match=key):
            rendered(own)


@pytest.mark.parametrize("chart", ["prefect-server", "kube-prometheus-stack", "gateway-helm"])
def test_one_version_of_each_other_chart(chart: str) -> None:
    (row,) = (line for line in README.splitlines() if line.startswith("|") and chart in line.split("|")[1])
    version = row.split("|")[2].strip()
    (command,) = (line for line in WALKTHROUGH.splitlines() if line.startswith("helm install") and chart in line)
    assert f"--version {version} " in command
    example = CHART / "examples" / f"{chart}-values.yaml"
    assert not example.exists() or example.read_text().startswith(f"# Values of the chart {chart} {version} ")


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"-f (infra/\S+)", WALKTHROUGH) + [
        f"infra/helm/triton-placement/{path}" for path in re.findall(r"\b((?:examples|ci|files)/[\w-]+\.\w+)", README)
    ]
    assert len(named) > 5
    assert [path for path in named if not Path(path).exists()] == []


def test_examples_of_values_are_values() -> None:
    """Those of this chart fit it; those of other charts are YAML at least."""
    for path in (CHART / "examples").glob("*-values.yaml"):
        own = yaml.safe_load(path.read_text())
        if "placement" in own:
            base = values("kind-cpu")
            base["placement"]["metrics"] |= own["placement"]["metrics"]
            rendered(base | {key: section for key, section in own.items() if key != "placement"})

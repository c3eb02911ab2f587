"""What the flow `profile` measures is kept on a volume that the worker writes and reads."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from flows.watch import watch
from tasks.catalogue import Catalogue, Entry, Number, write_catalogue
from tasks.config import ConfigError, read_config
from tasks.fleets import FleetUnreadableError
from tests.infra.chart.rendering import NAMES, Objects, release, rendered, values

CONFIG = Path("/etc/triton-placement/placement.yaml")
WITHOUT = "no-operator"
WITH = tuple(name for name in NAMES if name != WITHOUT)


def placement(made: Objects) -> str:
    text: str = made.one("ConfigMap", "demo-config")["data"]["placement.yaml"]
    return text


def mounts(name: str, pod: str) -> dict[str, dict[str, Any]]:
    """By the name of the volume."""
    return {m["name"]: m for m in release(name).pods()[pod]["spec"]["containers"][0]["volumeMounts"]}


def catalogue_file(name: str, tmp_path: Path) -> Path:
    """Where the flows look, by their own rule, for the configuration where the pod has it."""
    (tmp_path / "placement.yaml").write_text(placement(release(name)))
    return read_config(tmp_path / "placement.yaml").catalogue_path(CONFIG)


@pytest.mark.parametrize("name", WITH)
def test_the_worker_may_write_where_the_configuration_names_the_catalogue(name: str, tmp_path: Path) -> None:
    """The folder is the mount, since the file is replaced by renaming another beside it; nothing there is read-only."""
    mount = mounts(name, "demo-worker")["catalogue"]
    assert catalogue_file(name, tmp_path).parent == Path(mount["mountPath"])
    assert not mount.get("readOnly")
    spec = release(name).pods()["demo-worker"]["spec"]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsUser"]


@pytest.mark.parametrize("name", WITH)
def test_nobody_else_mounts_it_so_that_one_node_is_enough(name: str) -> None:
    pods = release(name).pods().items()
    holders = {n for n, pod in pods for v in pod["spec"].get("volumes", []) if v["name"] == "catalogue"}
    assert holders == {"demo-worker"}
    worker = release(name).one("Deployment", "demo-worker")["spec"]
    assert (worker["replicas"], worker["strategy"]["type"]) == (1, "Recreate"), "two would wait for one volume"


CLAIMS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "kind-cpu": ("demo-catalogue", {"resources": {"requests": {"storage": "1Gi"}}}),
    "workload-identity": (
        "demo-catalogue",
        {"storageClassName": "standard-rwo", "resources": {"requests": {"storage": "10Gi"}}},
    ),
    "claim-strict": ("measured", None),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claim_is_the_given_one_or_made_and_left_at_an_uninstall(name: str) -> None:
    claim, spec = CLAIMS[name]
    volumes = {v["name"]: v for v in release(name).pods()["demo-worker"]["spec"]["volumes"]}
    assert volumes["catalogue"]["persistentVolumeClaim"] == {"claimName": claim}
    made = release(name).of("PersistentVolumeClaim")
    assert [item["spec"] for item in made] == ([{"accessModes": ["ReadWriteOnce"]} | spec] if spec else [])
    assert all(item["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for item in made)


def test_it_can_be_left_out() -> None:
    assert "catalogue" not in placement(release(WITHOUT))
    assert "catalogue" not in mounts(WITHOUT, "demo-worker")
    assert release(WITHOUT).of("PersistentVolumeClaim") == []


def test_a_catalogue_of_ones_own_beside_the_volume_is_refused() -> None:
    own = values("kind-cpu")
    own["placement"]["catalogue"] = "elsewhere.yaml"
    with pytest.raises(helm.HelmRenderError, match=r"placement\.catalogue.*filled in.*catalogue\.enabled"):
        rendered(own)


def undeclared(folder: Path) -> Path:
    """A chart's configuration in which one model's needs are declared nowhere; its catalogue is in the folder."""
    own = values("kind-cpu")
    own["placement"]["models"]["embed"] = {"queue_ms": 60}
    path = folder / "placement.yaml"
    path.write_text(placement(rendered(own)).replace("/var/lib/triton-placement", str(folder)))
    return path


def test_what_profile_writes_a_tick_reads(tmp_path: Path) -> None:
    path = undeclared(tmp_path)
    with pytest.raises(ConfigError, match=r"models\.embed.*run flows/profile\.py"):
        read_config(path)
    number = Number(value=0.0, source="measured", date=date(2026, 1, 1))
    entry = Entry(
        footprint_bytes=number.model_copy(update={"value": 220e6}), service_ms=number.model_copy(update={"value": 40.0})
    )
    catalogue = Catalogue().with_entry("embed", "small", entry).with_entry("embed", "large", entry)
    write_catalogue(read_config(path, has_needs=False).catalogue_path(path), catalogue)
    (embed,) = (model for model in read_config(path).domain_models() if model.name == "embed")
    assert {gpu: (n.footprint_bytes, n.service_ms) for gpu, n in embed.need_by_gpu_type.items()} == {
        "large": (220_000_000, 40.0),
        "small": (220_000_000, 40.0),
    }


def test_the_listener_does_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pod has no such volume, and what one model needs is known there alone: it comes as far as the cluster."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(FleetUnreadableError, match="set KUBECONFIG, or run in one"):
        watch(str(undeclared(tmp_path)), threading.Event())

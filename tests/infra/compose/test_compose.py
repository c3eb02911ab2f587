"""compose.yaml and the Dockerfiles, checked without an engine: by Compose's own parser, hadolint and promtool."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.chart.rendering import CHART

ROOT = Path(__file__).parents[3]
INFRA = ROOT / "infra"
TOOLS = Path(sys.executable).parent
GIVEN = {"TRITON_CONTROL": "triton-control=secret", "MODELS": "/models"}
CONTROL = "model-repository,model-config,shared-memory,trace,logging:triton-control=secret"


def composed(*files: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What ``docker compose config`` makes of the files: merged, interpolated and checked against its schema."""
    command = [str(TOOLS / "docker-compose"), *(f"--file={file}" for file in files), "config"]
    given = GIVEN if environment is None else environment
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"]} | given, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = composed(INFRA / "compose.yaml")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def test_compose_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((INFRA / "compose.yaml").read_text().replace("read_only", "readonly"))
    assert "readonly" in composed(wrong).stderr


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_what_must_be_given_is_asked_for(missing: str) -> None:
    done = composed(INFRA / "compose.yaml", environment={k: v for k, v in GIVEN.items() if k != missing})
    assert done.returncode != 0
    assert missing in done.stderr


def test_every_triton_loads_what_it_is_told_and_by_whom_it_trusts(services: dict[str, Any]) -> None:
    tritons = {name: s for name, s in services.items() if name.startswith("triton-")}
    assert len(tritons) == 2
    entry = (INFRA / "images" / "triton.Dockerfile").read_text()
    assert '"--model-control-mode=explicit"' in entry
    for service in tritons.values():
        assert f"--http-restricted-api={CONTROL}" in service["command"]
        assert f"--grpc-restricted-protocol={CONTROL}" in service["command"]
        exit_s = next(int(a.split("=")[1]) for a in service["command"] if a.startswith("--exit-timeout-secs"))
        assert int(service["stop_grace_period"].removesuffix("s")) > exit_s
        assert service["read_only"]


def test_only_the_gateway_is_open_to_other_machines(services: dict[str, Any]) -> None:
    open_ports = {n for n, s in services.items() for p in s.get("ports", []) if p.get("host_ip") != "127.0.0.1"}
    assert open_ports == {"gateway"}


def test_every_file_that_is_mounted_exists(services: dict[str, Any]) -> None:
    sources = [v["source"] for s in services.values() for v in s.get("volumes", []) if v["type"] == "bind"]
    assert len(sources) == 7
    assert [s for s in sources if s != "/models" and not Path(s).exists()] == []


def test_with_gpus_each_replica_has_its_own() -> None:
    done = composed(INFRA / "compose.yaml", INFRA / "compose.gpu.yaml")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    devices = [
        s["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for s in found.values() if "deploy" in s
    ]
    assert devices == [["0"], ["1"]]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    shutil.copy(INFRA / "prometheus" / "prometheus.yml", tmp_path)
    shutil.copy(CHART / "files" / "rules.yaml", tmp_path)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_services_that_there_are(services: dict[str, Any]) -> None:
    jobs = yaml.safe_load((INFRA / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = [t.split(":")[0] for job in jobs for static in job["static_configs"] for t in static["targets"]]
    assert set(targets) == {"triton-0", "triton-1", "gateway", "pushgateway"}
    assert set(targets) <= set(services)


@pytest.mark.parametrize("name", ["flows", "triton"])
def test_dockerfiles_are_clean(name: str) -> None:
    command = [str(TOOLS / "hadolint"), str(INFRA / "images" / f"{name}.Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^USER 1000:1000$", (INFRA / "images" / f"{name}.Dockerfile").read_text(), re.M)


def test_what_the_image_copies_is_let_in() -> None:
    let_in = (ROOT / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (?!--from)(\S+)", (INFRA / "images" / "flows.Dockerfile").read_text(), re.M)
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path.split('/')[0]}" in let_in


def test_the_image_has_the_versions_that_were_tested() -> None:
    pinned = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.M)
    flows, dev = (dict(pinned.findall((ROOT / "requirements" / f).read_text())) for f in ("flows.txt", "dev.txt"))
    assert flows.items() <= dev.items()
    assert {"prefect", "pyarrow"} <= flows.keys()  # replay reads recorded demand as Parquet
    assert "pytest" not in flows


def test_one_version_of_triton_everywhere() -> None:
    """26.06 or later: model control can load code, and NVIDIA closed its holes there."""
    chart = yaml.safe_load((CHART / "values.yaml").read_text())["triton"]["image"]["tag"]
    (image,) = re.findall(r"^ARG TRITON=(\S+)$", (INFRA / "images" / "triton.Dockerfile").read_text(), re.M)
    assert chart == image
    assert tuple(map(int, chart.split("-")[0].split("."))) >= (26, 6)

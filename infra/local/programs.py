"""What supervisord runs for the local fleet, and the configuration files of those programs."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from infra.local.checks import ROOT
from tasks.fleets.envoy_resources import file_source
from tasks.fleets.state import HOST, State

BIN = Path(sys.executable).parent
SCRAPE_S = 5
RETENTION = "7d"
STOP_S = 20
"""Longer than Triton gives its requests in flight (5 s) and its models to unload."""
GATEWAY_SERIES = (
    r"^cluster\..+\.(upstream_rq_(completed|cancelled|active|timeout|retry|retry_success|rx_reset|[1-5]xx|[1-5]\d\d)"
    r"|upstream_cx_(none_healthy|connect_fail|active)|membership_(healthy|total))$"
)
"""Of Envoy's statistics, those that say something about models: all of them are a thousand lines a scrape."""
FLEET_VARIABLE = "LOCAL_FLEET"
"""Environment of every process of the fleet: the fleet's folder. So none is overlooked when it goes down."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that supervisord keeps running."""

    name: str
    command: tuple[str, ...]
    starts_at_once: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs that do not come from the flows' own environment."""

    triton_python: Path
    prometheus: Path
    pushgateway: Path


def programs(
    state: State, tools: Tools, config_path: Path, prefect_environment: Mapping[str, str] | None
) -> list[Program]:
    """Everything of one fleet; without an environment for Prefect, no Prefect and nobody who listens for it."""
    folder = state.folder
    envoy = (str(BIN / "envoy"), "-c", str(folder / "envoy" / "bootstrap.json"))
    prometheus = (
        str(tools.prometheus),
        f"--config.file={folder / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus' / 'data'}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address={state.address('prometheus')}",
    )
    replica = (str(tools.triton_python), str(ROOT / "infra" / "local" / "replica.py"), str(folder))
    return [
        # one worker: it sees all of a copy's requests in flight, and sends the next where there are fewest
        Program("envoy", (*envoy, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")),
        Program("prometheus", prometheus),
        Program("pushgateway", (str(tools.pushgateway), f"--web.listen-address={state.address('pushgateway')}")),
        *_prefect(state, config_path, prefect_environment),
        *(Program(slot.name, (*replica, slot.name), starts_at_once=False) for slot in state.slots),
    ]


def _prefect(state: State, config_path: Path, environment: Mapping[str, str] | None) -> list[Program]:
    if environment is None:
        return []
    prefect, port = str(BIN / "prefect"), str(state.port_by_service["prefect"])
    worker = ("worker", "start", "--pool", "local", "--type", "process", "--name", "local")
    return [
        Program("prefect-server", (prefect, "server", "start", "--host", HOST, "--port", port), True, environment),
        Program("prefect-worker", (prefect, *worker), False, environment),
        Program("listener", (sys.executable, "-m", "flows.watch", str(config_path.absolute())), False, environment),
    ]


def supervisor_config(state: State, wanted: list[Program]) -> str:
    """supervisord's own configuration file."""
    folder = state.folder
    sections = [
        f"[unix_http_server]\nfile={_quoted(state.supervisor_socket)}\nchmod=0700",
        f"[supervisord]\nlogfile={_quoted(folder / 'logs' / 'supervisord.log')}\nlogfile_maxbytes=1MB\n"
        f"logfile_backups=1\npidfile={_quoted(folder / 'supervisord.pid')}\ndirectory={_quoted(ROOT)}",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        *(_section(folder, program) for program in wanted),
    ]
    return "\n\n".join(sections) + "\n"


def _section(folder: Path, program: Program) -> str:
    environment = ",".join(f'{key}="{_quoted(value)}"' for key, value in sorted(program.environment.items()))
    lines = {
        "command": _quoted(shlex.join(program.command)),
        "environment": environment,
        "directory": _quoted(ROOT),
        "autostart": str(program.starts_at_once).lower(),
        "autorestart": "true",
        "startsecs": 1,
        # the delay grows by a second each time: a port that is taken for a while is waited for
        "startretries": 100,
        "stopwaitsecs": STOP_S,
        # what outlives its parent by then goes with it
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": _quoted(folder / "logs" / f"{program.name}.log"),
        "stdout_logfile_maxbytes": "5MB",
        "stdout_logfile_backups": 1,
    }
    return f"[program:{program.name}]\n" + "\n".join(f"{key}={value}" for key, value in lines.items() if value != "")


def _quoted(value: object) -> str:
    """supervisord expands ``%(name)s`` everywhere."""
    return str(value).replace("%", "%%")


def supervisor_environment(state: State) -> dict[str, str]:
    """Inherited by every process of the fleet. No proxy stands between processes on loopback."""
    return os.environ | {FLEET_VARIABLE: str(state.folder), "NO_PROXY": HOST, "no_proxy": HOST}


def envoy_bootstrap(state: State) -> str:
    """Envoy's start: everything else comes from files that may change while it runs."""
    folder = state.folder / "envoy"
    address = {"socket_address": {"address": HOST, "port_value": state.port_by_service["gateway_admin"]}}
    return json.dumps(
        {
            "node": {"id": "local", "cluster": "local"},
            "admin": {"address": address},
            "dynamic_resources": {
                "cds_config": file_source(folder / "clusters.json"),
                "lds_config": file_source(folder / "listeners.json"),
            },
        },
        indent=1,
    )


def prometheus_config(state: State) -> str:
    """What is scraped: the gateway, the replicas that are asked for, and what the ticks pushed."""

    def static(job: str, service: str, **more: object) -> dict[str, object]:
        return {"job_name": job, "static_configs": [{"targets": [state.address(service)]}], **more}

    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S - 1}s"},
        "scrape_configs": [
            static(
                "gateway",
                "gateway_admin",
                metrics_path="/stats/prometheus",
                params={"filter": [GATEWAY_SERIES]},
            ),
            static("pushgateway", "pushgateway", honor_labels=True),
            static("prometheus", "prometheus"),
            {
                "job_name": "triton",
                "file_sd_configs": [{"files": ["targets/*.json"], "refresh_interval": f"{SCRAPE_S}s"}],
            },
        ],
    }
    return yaml.safe_dump(config, sort_keys=False)

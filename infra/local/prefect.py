"""Prefect of the local fleet: its settings, and what is registered with its server."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from infra.local.checks import ROOT
from infra.local.prefect_api import PrefectError, api_url, call, has
from infra.local.programs import BIN
from tasks.fleets.state import State

HEARTBEAT_S = 30
"""The least that Prefect allows."""
DEAD_AFTER_S = 90
"""Three heartbeats: a run that missed one is busy, not dead."""
LEASE_S = 60
RETENTION_S = 3 * 24 * 3600
"""A tick every 30 s leaves about 300 MB a day behind."""
SLOT_WAIT_S = 2
POOL = "local"
AUTOMATION = "A run without heartbeats has crashed"
DEPLOY_S = 120.0
ENDED = ("Completed", "Failed", "Cancelled", "Crashed")


def environment(state: State) -> dict[str, str]:
    """Settings of the server, the worker, its runs, and of a person's ``prefect`` command."""
    return {
        "PREFECT_HOME": str(state.folder / "prefect"),
        "PREFECT_API_URL": api_url(state),
        # nothing is sent anywhere, and nothing is fetched from anywhere
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # what a tick warns of is in its run's log
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # leases on disk: a server that restarts in the middle of a tick does not end it
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": str(LEASE_S),
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(RETENTION_S),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{RETENTION_S}S",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # by default a run that finds another one acting is asked again only after half a minute
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": str(SLOT_WAIT_S),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    }


def has_pool(state: State) -> bool:
    """The worker makes its pool when it starts."""
    return has(state, f"work_pools/{POOL}")


def register_automation(state: State) -> None:
    """A run whose worker died with it would stay Running for ever: without heartbeats it becomes Crashed."""
    same_name = {"automations": {"name": {"any_": [AUTOMATION]}}}
    if call(state, "POST", "automations/filter", same_name):
        return
    call(
        state,
        "POST",
        "automations/",
        {
            "name": AUTOMATION,
            "trigger": {
                "type": "event",
                "posture": "Proactive",
                "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
                "for_each": ["prefect.resource.id"],
                # its start counts too: a run may die before its first heartbeat
                "after": ["prefect.flow-run.Running", "prefect.flow-run.heartbeat"],
                "expect": ["prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in ENDED)],
                "threshold": 1,
                "within": DEAD_AFTER_S,
            },
            "actions": [
                {
                    "type": "change-flow-run-state",
                    "state": "CRASHED",
                    "message": f"no heartbeat for {DEAD_AFTER_S} s: the process is gone",
                }
            ],
        },
    )


def forget_late_runs(state: State) -> None:
    """Delete the runs that were due while the fleet was down: a hundred after an hour. A tick looks at the fleet as it
    is now, so one is enough; all of them at once lock the server's database for minutes."""
    due = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "expected_start_time": {"before_": datetime.now(UTC).isoformat()},
    }
    for run in call(state, "POST", "flow_runs/filter", {"flow_runs": due, "limit": 200}):
        call(state, "DELETE", f"flow_runs/{run['id']}")


def deploy(state: State, config_path: Path, interval_s: float, say: Callable[[str], None]) -> None:
    """Register those deployments of ``prefect.yaml`` that run in the local work pool, with their schedules and triggers
    and with this configuration and its interval, unless that was done already.

    Raises:
        PrefectError: what ``prefect deploy`` said.
    """
    definition = definition_of(config_path, interval_s)
    flows = (path.read_bytes() for path in sorted((ROOT / "flows").glob("*.py")))
    stamp = hashlib.sha256(b"\0".join((definition.encode(), *flows))).hexdigest()
    stamp_file = state.folder / "prefect" / "deployed"
    is_same = stamp_file.exists() and stamp_file.read_text() == stamp
    if is_same and has(state, "deployments/name/reconcile/local"):
        return
    say("deploying the flows")
    file = state.folder / "prefect" / "prefect.yaml"
    file.write_text(definition)
    command = [str(BIN / "prefect"), "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = _run(command, state)
    if done.returncode:
        raise PrefectError(f"prefect deploy failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    stamp_file.write_text(stamp)


def definition_of(config_path: Path, interval_s: float) -> str:
    """``prefect.yaml`` as it is for this fleet: a tick every ``interval_s``, limits.interval_s of its configuration."""
    whole = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    own = [deployment for deployment in whole["deployments"] if deployment["work_pool"]["name"] == POOL]
    for deployment in own:
        deployment["parameters"]["config"] = _relative(config_path)
        for schedule in deployment.get("schedules", ()):
            if "interval" in schedule:
                schedule["interval"] = interval_s
    return yaml.safe_dump({**whole, "deployments": own}, sort_keys=False)


def _run(command: list[str], state: State) -> subprocess.CompletedProcess[str]:
    settings = os.environ | environment(state)
    try:
        return subprocess.run(
            command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=DEPLOY_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        log = state.folder / "logs" / "prefect-server.log"
        raise PrefectError(f"prefect deploy did not end within {DEPLOY_S:g} s; see {log}") from error


def _relative(path: Path) -> str:
    """As a person would write it: the runs start in the repository's root."""
    path = path.absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)

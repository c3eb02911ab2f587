"""Bring the local fleet up, and take it down so that nothing is left."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from infra.local import prefect, prefect_api
from infra.local.checks import check_libpython, check_platform, site_packages, tool, triton_python
from infra.local.leftovers import end_processes, processes, remove_leaked_memory, shared_memory
from infra.local.models import build
from infra.local.programs import (
    Tools,
    envoy_bootstrap,
    programs,
    prometheus_config,
    supervisor_config,
    supervisor_environment,
)
from tasks.config import Config
from tasks.fleets.envoy import Gateway
from tasks.fleets.local import LocalFleet
from tasks.fleets.state import State, StateError, choose_state, is_free, read_state, write_atomically, write_state
from tasks.fleets.supervisor import Supervisor
from tasks.world import ReplicaState

Say = Callable[[str], None]

START_S = 60.0
"""A service that is not up by then will not come up: its log says why."""
PREFECT_START_S = 180.0
"""The first start of its server on a busy machine creates the database."""
TRIES = 3
"""A port may be taken for a moment; a program that ends this often ends for a reason."""
STOP_S = 60.0
POLL_S = 0.1


class FleetError(Exception):
    """The fleet did not come up or go down; the text says what is wrong and where to look."""


def up(config: Config, config_path: Path, say: Say, has_prefect: bool = True) -> LocalFleet:
    """Bring the fleet up, or what is missing of it. A fleet that runs goes on running.

    Raises:
        FleetError, MachineError, RepositoryError, PrefectError, OSError: the cause and what to do.
    """
    check_platform()
    folder = config.local_state.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        state = _prepared(config, config_path, say, has_prefect)
        supervisor = Supervisor(state.supervisor_socket)
        if supervisor.is_running():
            supervisor.update()
        else:
            _start_supervisor(state, supervisor)
        live = LocalFleet(config)
        _start_replicas(live, supervisor, say)
        _await_services(live, state, say)
        if has_prefect:
            _start_prefect(state, supervisor, say)
            prefect.deploy(state, config_path, config.limits.interval_s, say)
            supervisor.start("listener")
            say(f"prefect      {state.url('prefect')}")
    return live


def down(folder: Path, say: Say) -> None:
    """Stop everything of the fleet in this folder, also what lost its parent; its history stays. Idempotent."""
    folder = folder.absolute()
    regions = shared_memory(folder)
    with contextlib.suppress(StateError):
        state = read_state(folder)
        supervisor = Supervisor(state.supervisor_socket)
        if supervisor.is_running():
            say("stopping")
            supervisor.call("shutdown")
            _until(lambda: not supervisor.is_running(), STOP_S)
        _until(lambda: not processes(folder), 2.0)
        state.supervisor_socket.unlink(missing_ok=True)
        Gateway(state).forget_all()
    end_processes(folder)
    for name in ("wanted", "run", "prometheus/targets"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for region in regions:
        region.unlink(missing_ok=True)
    remove_leaked_memory()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two `up` at once: the second waits, and finds that all is done."""
    with (folder / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepared(config: Config, config_path: Path, say: Say, has_prefect: bool) -> State:
    """Write everything that the programs read."""
    folder = config.local_state.absolute()
    tools = Tools(triton_python(), tool("prometheus", say), tool("prometheus-pushgateway", say))
    check_libpython(say)
    state = _state(config, folder)
    for name in ("logs", "prometheus/targets", "prefect", "backends/python"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    build(config, site_packages(), folder)
    _copy_backend(folder)
    _write_secret(folder)
    Gateway(state).write({name: model.min_copies == 0 for name, model in config.models.items()})
    write_atomically(folder / "envoy" / "bootstrap.json", envoy_bootstrap(state))
    write_atomically(folder / "prometheus" / "prometheus.yml", prometheus_config(state))
    environment = prefect.environment(state) if has_prefect else None
    wanted = programs(state, tools, config_path, environment)
    write_atomically(folder / "supervisord.conf", supervisor_config(state, wanted))
    return state


def _state(config: Config, folder: Path) -> State:
    """The ports of last time, unless the fleet is down and somebody took one of them."""
    before = None
    with contextlib.suppress(StateError):
        before = read_state(folder)
    is_running = before is not None and Supervisor(before.supervisor_socket).is_running()
    if before and not is_running:
        end_processes(folder)
        if not all(is_free(port) for port in before.ports):
            before = None
    state = choose_state(folder, config, keep=before)
    write_state(state)
    if not is_running:
        Gateway(state).forget_all()
    return state


def _copy_backend(folder: Path) -> None:
    """Triton wants the Python backend and the stub of the Python version in one folder."""
    package = site_packages() / "pytriton" / "tritonserver"
    version = site_packages().parent.name.removeprefix("python")
    stub = package / "python_backend_stubs" / version / "triton_python_backend_stub"
    for source in (*(package / "backends" / "python").iterdir(), stub):
        target = folder / "backends" / "python" / source.name
        if not target.exists():
            shutil.copy(source, target)


def _write_secret(folder: Path) -> None:
    path = folder / "control.secret"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"local-fleet-key={secrets.token_urlsafe(24)}\n")


def _start_supervisor(state: State, supervisor: Supervisor) -> None:
    state.supervisor_socket.unlink(missing_ok=True)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(state.folder / "supervisord.conf")]
    done = subprocess.run(
        command,
        env=supervisor_environment(state),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode or not _until(supervisor.is_running, START_S):
        raise FleetError(
            f"supervisord did not start: {done.stdout}{done.stderr} see {state.folder / 'logs' / 'supervisord.log'}"
        )


def _start_replicas(live: LocalFleet, supervisor: Supervisor, say: Say) -> None:
    """Those that were asked for before, and each pool's least."""
    wanted = live.state.wanted()
    running = {
        name for name, program in supervisor.programs().items() if program["statename"] in ("RUNNING", "STARTING")
    }
    say("starting Triton")
    for slot in live.state.slots:
        if slot.name in wanted - running:
            live.start(slot)
    for pool in live.pools():
        live.scale_up(pool.name, pool.min_replicas)


def _await_services(live: LocalFleet, state: State, say: Say) -> None:
    gateway = Gateway(state)
    _require(gateway.is_live, state, "envoy")
    live.declare(live.models)
    say(f"gateway      {state.url('gateway')}")
    _require(lambda: _answers(state.port_by_service["prometheus"], "/-/ready"), state, "prometheus")
    _require(lambda: _answers(state.port_by_service["pushgateway"], "/-/ready"), state, "pushgateway")
    say(f"prometheus   {state.url('prometheus')}")
    for name in sorted(live.state.wanted()):
        _require(lambda name=name: _is_ready(live, name), state, name)  # type: ignore[misc]
    say(f"replicas     {', '.join(sorted(live.state.wanted()))}")


def _is_ready(live: LocalFleet, name: str) -> bool:
    return any(replica.name == name and replica.state is ReplicaState.READY for replica in live.replicas())


def _start_prefect(state: State, supervisor: Supervisor, say: Say) -> None:
    if not prefect_api.is_healthy(state):
        say("waiting for the Prefect server")
        _require(lambda: prefect_api.is_healthy(state), state, "prefect-server", PREFECT_START_S)
    if not _is_up(supervisor, "prefect-worker"):
        prefect.forget_late_runs(state)
    supervisor.start("prefect-worker")
    prefect.register_automation(state)
    _require(lambda: prefect.has_pool(state), state, "prefect-worker", PREFECT_START_S)


def _is_up(supervisor: Supervisor, program: str) -> bool:
    return bool(supervisor.programs()[program]["statename"] == "RUNNING")


def _require(is_up: Callable[[], bool], state: State, program: str, timeout_s: float = START_S) -> None:
    """Wait until it is up; a program that keeps ending is not waited for."""
    supervisor = Supervisor(state.supervisor_socket)
    pids: set[int] = set()

    def is_settled() -> bool:
        pids.add(supervisor.programs()[program]["pid"])
        return is_up() or len(pids - {0}) > TRIES

    if not _until(is_settled, timeout_s) or not is_up():
        log = state.folder / "logs" / f"{program}.log"
        last = log.read_text(errors="replace")[-1500:] if log.exists() else ""
        raise FleetError(f"{program} does not come up; the end of {log}:\n{last}")


def _until(is_so: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _answers(port: int, path: str) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

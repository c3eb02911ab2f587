"""The local fleet: Triton servers on this machine behind Envoy, run by supervisord (`infra/local` brings them up).

It may be used from any process and from any thread: ports, routes and the slots that are asked for are read from the
fleet's folder, what runs is asked of supervisord.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from tasks.config import Config
from tasks.fleets import FleetBusyError, FleetUnreadableError, LiveFleet
from tasks.fleets.envoy import Gateway
from tasks.fleets.state import HOST, Slot, StateError, read_state, write_atomically
from tasks.fleets.supervisor import Supervisor
from tasks.world import Model, Pool, Replica, ReplicaState

ALIVE_S = 1.0
"""A live server answers within milliseconds, also while it loads."""
START_S = 10.0
"""A server that is not alive this long after its start is not starting, it hangs."""
LOCK_POLL_S = 0.1


class LocalFleet(LiveFleet):
    """``tasks.fleets.LiveFleet`` for the servers on this machine."""

    splits_by_weight = True

    def __init__(self, config: Config) -> None:
        """Raises:
        FleetUnreadableError: the fleet was never brought up.
        """
        try:
            self.state = read_state(config.local_state)
        except StateError as error:
            raise FleetUnreadableError(str(error)) from error
        self.prometheus_url = self.state.url("prometheus")
        self.pushgateway_url = self.state.url("pushgateway")
        self.gateway_url = self.state.url("gateway")
        self.models = config.domain_models()
        self._config = config
        self._supervisor = Supervisor(self.state.supervisor_socket)
        self._gateway = Gateway(self.state)
        self._slots = [slot for slot in self.state.slots if slot.pool in config.pools]
        self._zero_by_policy_by_model = {model.name: model.min_copies == 0 for model in self.models}

    def pools(self) -> tuple[Pool, ...]:
        """The configured pools with the count asked for now."""
        wanted = self.state.wanted()
        asked = [slot.pool for slot in self.state.slots if slot.name in wanted]
        return tuple(replace(pool, replicas=asked.count(pool.name)) for pool in self._config.domain_pools())

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica that should be there or still is.

        Raises:
            FleetUnreadableError: supervisord does not answer.
        """
        try:
            programs = self._supervisor.programs()
        except StateError as error:
            raise FleetUnreadableError(str(error)) from error
        wanted = self.state.wanted()
        there = [s for s in self._slots if s.name in wanted or _is_running(programs.get(s.name))]
        if not there:
            return ()
        with ThreadPoolExecutor(len(there), thread_name_prefix="alive") as pool:
            return tuple(pool.map(lambda s: self._replica(s, programs.get(s.name, {}), s.name in wanted), there))

    def routes(self) -> Mapping[str, frozenset[str]]:
        """Replica names by model."""
        return {model: frozenset(weights) for model, weights in self.weights().items()}

    def weights(self) -> Mapping[str, Mapping[str, float]]:
        """By model and replica name."""
        name_by_port = {slot.http: slot.name for slot in self.state.slots}
        return {
            model: {name_by_port[port]: weight for port, weight in weights.items() if port in name_by_port}
            for model, weights in self._gateway.endpoints().items()
        }

    def failing_copies(self) -> Mapping[tuple[str, str], str]:
        """None: Triton's own counters tell.

        Raises:
            OSError: the gateway does not answer.
        """
        self._gateway.check()
        return {}

    def declare(self, models: Iterable[Model]) -> None:
        """Make exactly these models known to the gateway."""
        self._zero_by_policy_by_model = {model.name: model.min_copies == 0 for model in models}
        self._gateway.declare(self._zero_by_policy_by_model)

    def route(self, model: str, replica: str) -> None:
        """Send the model's requests to the replica too; return when its health check passes at the gateway."""
        self._gateway.change(model, self._slot(replica).http, True, self._zero_by_policy_by_model)

    def unroute(self, model: str, replica: str) -> None:
        """Send the model's requests elsewhere; return when the gateway does so."""
        self._gateway.change(model, self._slot(replica).http, False, self._zero_by_policy_by_model)

    def weigh(self, model: str, weights: Mapping[str, float]) -> None:
        """Give the model's copies in these replicas other weights, all at once; return when the gateway uses them."""
        self._gateway.weigh(model, {self._slot(replica).http: weight for replica, weight in weights.items()})

    def scale_up(self, pool: str, count: int) -> None:
        """Start the lowest free slots until ``count`` are asked for.

        Raises:
            OSError: the pool has fewer slots.
        """
        wanted = self.state.wanted()
        slots = [slot for slot in self.state.slots if slot.pool == pool]
        if count > len(slots):
            raise OSError(f"pool {pool} has {len(slots)} slots, {count} asked for: raise max_replicas, then make up")
        asked = sum(slot.name in wanted for slot in slots)
        free = [slot for slot in slots if slot.name not in wanted]
        for slot in free[: max(count - asked, 0)]:
            self.start(slot)

    def scale_down(self, replica: str) -> None:
        """Stop this replica and return once its process is gone."""
        slot = self._slot(replica)
        self.state.want_no_more(replica)
        self._gateway.forget(slot.http)
        self._target_file(slot).unlink(missing_ok=True)
        self._supervisor.stop(replica)

    def start(self, slot: Slot) -> None:
        """Ask for this slot from now on, and start its server; idempotent."""
        self.state.want(slot.name)
        labels = {"replica": slot.name, "pool": slot.pool}
        target = [{"targets": [f"{HOST}:{slot.metrics}"], "labels": labels}]
        write_atomically(self._target_file(slot), json.dumps(target))
        self._supervisor.start(slot.name)

    def programs(self) -> dict[str, str]:
        """What supervisord says of each program: RUNNING, STARTING, BACKOFF, FATAL, STOPPED, EXITED."""
        return {name: info["statename"] for name, info in self._supervisor.programs().items()}

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[None]:
        """Hold the fleet's lock: the kernel frees it with the process, however that ends."""
        deadline = time.monotonic() + timeout_s
        with (self.state.folder / "act.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise FleetBusyError(f"another tick still acts after {timeout_s:g} s") from None
                    time.sleep(LOCK_POLL_S)
            yield

    def _slot(self, replica: str) -> Slot:
        slot = self.state.slot_by_name.get(replica)
        if slot is None:
            raise OSError(f"there is no replica {replica}; there are {', '.join(self.state.slot_by_name)}")
        return slot

    def _target_file(self, slot: Slot) -> Any:
        return self.state.folder / "prometheus" / "targets" / f"{slot.name}.json"

    def _replica(self, slot: Slot, program: Mapping[str, Any], is_wanted: bool) -> Replica:
        pool = self._config.pools[slot.pool]
        state, detail = _state(slot, program) if is_wanted else (ReplicaState.LEAVING, "")
        return Replica(
            name=slot.name,
            pool=slot.pool,
            gpu_type=pool.gpu_type or slot.pool,
            memory_bytes=int(pool.memory),
            compute=pool.compute,
            state=state,
            http=f"{HOST}:{slot.http}",
            grpc=f"{HOST}:{slot.grpc}",
            metrics=f"{HOST}:{slot.metrics}",
            node="localhost",
            detail=detail,
            life=str(program.get("pid", "")),
        )


def _is_running(program: Mapping[str, Any] | None) -> bool:
    return program is not None and program["statename"] in ("STARTING", "RUNNING", "BACKOFF", "STOPPING")


def _state(slot: Slot, program: Mapping[str, Any]) -> tuple[ReplicaState, str]:
    """The state of a replica that should run, and why."""
    name = program.get("statename", "unknown to supervisord")
    if name not in ("STARTING", "RUNNING"):
        return ReplicaState.UNREACHABLE, f"its process is {name}: {program.get('spawnerr') or 'see its log'}"
    if _is_alive(slot.http):
        return ReplicaState.READY, ""
    age_s = program["now"] - program["start"]
    if age_s < START_S:
        return ReplicaState.STARTING, f"started {age_s} s ago"
    return ReplicaState.UNREACHABLE, f"runs, but does not answer on {HOST}:{slot.http}"


def _is_alive(port: int) -> bool:
    with closing(http.client.HTTPConnection(HOST, port, timeout=ALIVE_S)) as connection:
        try:
            connection.request("GET", "/v2/health/live")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

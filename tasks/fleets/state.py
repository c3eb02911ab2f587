"""What the local fleet keeps on disk: its ports, chosen once, and which replica slots are asked for.

All of it lies in one folder, so several fleets can run side by side; nothing that matters is kept in memory.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.config import Config

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections: nobody takes one by accident while the fleet is down."""
SERVICES = ("gateway", "gateway_admin", "prometheus", "pushgateway", "prefect")
SOCKET_PATH_BYTES = 100
"""A Unix socket's path may have 107 bytes on Linux, and supervisord binds to a longer temporary name first."""
REMEDY = "start it with: make up"


class StateError(OSError):
    """The fleet's state cannot be read; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one replica: it keeps its name and its ports, whether a server runs there or not."""

    name: str
    pool: str
    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True, slots=True)
class State:
    """Where everything of one fleet is."""

    folder: Path
    port_by_service: dict[str, int]
    slots: tuple[Slot, ...]

    @property
    def slot_by_name(self) -> dict[str, Slot]:
        return {slot.name: slot for slot in self.slots}

    @property
    def ports(self) -> frozenset[int]:
        own = (port for slot in self.slots for port in (slot.http, slot.grpc, slot.metrics))
        return frozenset((*self.port_by_service.values(), *own))

    def address(self, service: str) -> str:
        return f"{HOST}:{self.port_by_service[service]}"

    def url(self, service: str) -> str:
        return f"http://{self.address(service)}"

    @property
    def supervisor_socket(self) -> Path:
        """In the folder, or in the temporary folder when the folder's path is too long for a Unix socket."""
        inside = self.folder / "supervisor.sock"
        if len(str(inside)) < SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"fleet-{digest}.sock"

    def wanted(self) -> frozenset[str]:
        """Names of the slots that should run: one empty file each, so that no writer can lose another's."""
        folder = self.folder / "wanted"
        return frozenset(path.name for path in folder.iterdir()) if folder.exists() else frozenset()

    def want(self, slot: str) -> None:
        (self.folder / "wanted").mkdir(exist_ok=True)
        (self.folder / "wanted" / slot).touch()

    def want_no_more(self, slot: str) -> None:
        (self.folder / "wanted" / slot).unlink(missing_ok=True)


def read_state(folder: Path) -> State:
    """Raises:
    StateError: there is no fleet in this folder, or its file is damaged.
    """
    folder = folder.absolute()
    path = folder / "fleet.json"
    try:
        content = json.loads(path.read_text())
        slots = tuple(Slot(**slot) for slot in content["slots"])
        return State(folder, dict(content["ports"]), slots)
    except FileNotFoundError as error:
        raise StateError(f"the local fleet is not running: {path} does not exist; {REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} cannot be read: {error}; remove the file, then {REMEDY}") from error


def write_state(state: State) -> None:
    content = {"ports": state.port_by_service, "slots": [asdict(slot) for slot in state.slots]}
    write_atomically(state.folder / "fleet.json", json.dumps(content, indent=2) + "\n")


def choose_state(folder: Path, config: Config, keep: State | None = None) -> State:
    """A slot for every replica that the pools may have, each with free ports; what ``keep`` has stays as it is."""
    ports = free_ports(keep.ports if keep else frozenset())
    kept = keep.port_by_service if keep else {}
    slots = keep.slot_by_name if keep else {}
    names = [(f"{pool}-{n}", pool) for pool, section in config.pools.items() for n in range(section.max_replicas)]
    return State(
        folder.absolute(),
        {service: kept[service] if service in kept else next(ports) for service in SERVICES},
        tuple(
            slots[name] if name in slots else Slot(name, pool, next(ports), next(ports), next(ports))
            for name, pool in names
        ),
    )


def free_ports(taken: frozenset[int] = frozenset()) -> Iterator[int]:
    """Ports on loopback that nobody listens on, in random order: two fleets that start together rarely meet."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in taken and is_free(port):
            yield port
    raise StateError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}")


def is_free(port: int) -> bool:
    with closing(socket.socket()) as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as file:
        file.write(text)
    Path(file.name).rename(path)

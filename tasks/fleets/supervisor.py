"""The process supervisor of the local fleet, over its Unix socket."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import Faults, SupervisorTransport

from tasks.fleets.state import REMEDY, StateError


class Supervisor:
    """Its programs by name. Every call opens a connection of its own, so it can be shared between threads.

    Every call raises ``StateError`` when supervisord does not answer.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def programs(self) -> dict[str, dict[str, Any]]:
        """What supervisord says of each program: ``statename``, ``start`` (Unix s), ``now``, ``pid``, ``spawnerr``."""
        return {info["name"]: info for info in self.call("getAllProcessInfo")}

    def start(self, program: str, wait: bool = False) -> None:
        self.call("startProcess", program, wait, accepted=(Faults.ALREADY_STARTED,))

    def stop(self, program: str, wait: bool = True) -> None:
        self.call("stopProcess", program, wait, accepted=(Faults.NOT_RUNNING, Faults.BAD_NAME))

    def is_running(self) -> bool:
        try:
            return bool(self.call("getState")["statename"] == "RUNNING")
        except StateError:
            return False

    def update(self) -> None:
        """Read the configuration file again; start what is new, stop what is gone, restart what changed."""
        (added, changed, removed), *_ = self.call("reloadConfig")
        for program in (*changed, *removed):
            self.stop(program)
            self.call("removeProcessGroup", program)
        for program in (*changed, *added):
            self.call("addProcessGroup", program)

    def call(self, method: str, *arguments: object, accepted: tuple[int, ...] = ()) -> Any:
        """One call; a fault in ``accepted`` is as good as an answer."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            proxy = ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(proxy.supervisor, method)(*arguments)
        except Fault as fault:
            if fault.faultCode in accepted:
                return None
            raise StateError(f"supervisord: {method} {' '.join(map(str, arguments))}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException) as error:
            raise StateError(
                f"the local fleet is not running: supervisord does not answer on {self._socket} ({error}); {REMEDY}"
            ) from error
        finally:
            transport.close()

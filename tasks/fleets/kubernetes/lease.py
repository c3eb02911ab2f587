"""One writer over the whole cluster: a Lease that is renewed while a tick acts and read again before each step."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tasks.fleets import FleetBusyError
from tasks.fleets.kubernetes.api import Api, ApiError
from tasks.fleets.kubernetes.call import Call, Json

log = logging.getLogger(__name__)

NAME = "triton-placement"
DURATION_S = 30.0
"""How long a holder that renews no more keeps others out. Longer than the API server takes to restart."""
RENEW_S = 5.0
LOOK_S = 0.5
"""Between two looks of a tick that waits."""


class Lease:
    """This process' hold on the lease.

    Clocks of two machines are never compared: a lease has run out when it was seen not to change for its duration.
    """

    def __init__(self, api: Api, duration_s: float = DURATION_S, renew_s: float = RENEW_S) -> None:
        self._api, self._duration_s, self._renew_s = api, duration_s, renew_s
        self._me = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._path = api.path("coordination.k8s.io/v1", "leases")
        self._renewed_at = -duration_s
        self._lock = threading.Lock()

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Raises:
        FleetBusyError: another holds it and renewed it within ``timeout_s``.
        """
        self._acquire(timeout_s)
        done = threading.Event()
        renewing = threading.Thread(target=self._keep_renewing, args=(done,), name="lease", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            self._release()

    def is_held(self) -> bool:
        """Read again from the API server; while that does not answer, as long as the lease cannot have run out."""
        try:
            return bool(self._read()["spec"].get("holderIdentity") == self._me) and self._is_fresh()
        except ApiError as error:
            return error.status != 404 and self._is_fresh()

    def _is_fresh(self) -> bool:
        """A pause of this process, too, can outlast the lease."""
        return time.monotonic() - self._renewed_at < self._duration_s - self._renew_s

    def _acquire(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        seen_version, seen_at = "", time.monotonic()
        while True:
            lease = self._read_or_create()
            if lease["metadata"]["resourceVersion"] != seen_version:
                seen_version, seen_at = lease["metadata"]["resourceVersion"], time.monotonic()
            holder = lease["spec"].get("holderIdentity")
            lasts_s = float(lease["spec"].get("leaseDurationSeconds", self._duration_s))
            if (not holder or time.monotonic() - seen_at > lasts_s) and self._write(lease, self._me):
                return
            if time.monotonic() > deadline:
                raise FleetBusyError(f"another tick acts: lease {self._api.namespace}/{NAME} is held by {holder}")
            time.sleep(LOOK_S)

    def _keep_renewing(self, done: threading.Event) -> None:
        while not done.wait(self._renew_s):
            try:
                lease = self._read()
                if lease["spec"].get("holderIdentity") != self._me:
                    return  # lost: is_held says so before the next step
                self._write(lease, self._me)
            except ApiError as error:
                log.warning("the lease could not be renewed: %s", error)

    def _release(self) -> None:
        try:
            lease = self._read()
            if lease["spec"].get("holderIdentity") == self._me:
                self._write(lease, "")
        except ApiError as error:
            log.warning("the lease could not be given back, it runs out by itself: %s", error)

    def _read(self) -> Json:
        return self._api.get(f"{self._path}/{NAME}")

    def _read_or_create(self) -> Json:
        try:
            return self._read()
        except ApiError as error:
            if error.status != 404:
                raise
        body: Json = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME},
            "spec": {"leaseDurationSeconds": round(self._duration_s)},
        }
        try:
            return self._api.call(Call("POST", self._path, body=body))
        except ApiError as error:
            if error.status != 409:
                raise
            return self._read()  # another tick made it in the meantime

    def _write(self, lease: Json, holder: str) -> bool:
        """Write it unless somebody else did since it was read."""
        now, began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), time.monotonic()
        spec = {"holderIdentity": holder, "renewTime": now, "leaseDurationSeconds": round(self._duration_s)}
        if holder and lease["spec"].get("holderIdentity") != holder:
            spec |= {"acquireTime": now, "leaseTransitions": lease["spec"].get("leaseTransitions", 0) + 1}
        try:
            self._api.call(Call("PUT", f"{self._path}/{NAME}", body=lease | {"spec": lease["spec"] | spec}))
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        self._renewed_at = began
        return True

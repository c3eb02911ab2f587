"""A real Kubernetes control plane on loopback: etcd, the API server, and the controllers where they are there.

The binaries are in the folder that ``KUBEBUILDER_ASSETS`` names, as envtest has it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from tasks.fleets.kubernetes.api import Api
from tasks.fleets.kubernetes.connection import api_client
from tests.triton_server import free_ports

ADMIN = "admin-token"
HOST = "127.0.0.1"
START_S = 60.0
CONTROLLERS = ("nodelifecycle", "podgc", "nodeipam", "route", "cloud-node-lifecycle", "service", "attachdetach")
"""Those that a cluster without kubelets, clouds and disks can do without."""


@dataclass
class ControlPlane:
    """Starts and stops the processes; ``assets`` has etcd, kube-apiserver and kube-controller-manager."""

    assets: Path
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.etcd, self.peer, self.port, self.controllers = free_ports(4)
        self.url = f"https://{HOST}:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    def start(self) -> None:
        _make_keys(self.folder)
        (self.folder / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n")
        self.kubeconfig(ADMIN)
        self._run("etcd", *self._etcd())
        self.start_api_server()
        self._run("kube-controller-manager", *self._controller_manager())
        _wait("the controllers", lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default").ok)

    def start_api_server(self) -> None:
        self._run("kube-apiserver", *self._api_server())
        _wait("the API server", lambda: self.get("/readyz").ok)

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:  # with open watches the API server lingers for a minute
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        for name in reversed(list(self.processes)):
            self.stop(name)

    def get(self, path: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        return requests.get(self.url + path, headers=headers, verify=str(self.certificate), timeout=5)

    def api(self, namespace: str, token: str = ADMIN, give_up_s: float = 25.0) -> Api:
        """A client of the project's own, with this token."""
        client, _ = api_client(None, self.kubeconfig(token, namespace))
        return Api(client, namespace, give_up_s)

    def kubeconfig(self, token: str, namespace: str = "default") -> Path:
        """A kubeconfig with this token."""
        path = self.folder / f"kubeconfig-{namespace}-{hashlib.sha256(token.encode()).hexdigest()[:8]}"
        context = {"cluster": "test", "user": "test", "namespace": namespace}
        content: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.certificate)}}
            ],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def _etcd(self) -> list[str]:
        client, peer = f"http://{HOST}:{self.etcd}", f"http://{HOST}:{self.peer}"
        flags = {
            "name": "test",
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"test={peer}",
        }
        return _flags(flags)

    def _api_server(self) -> list[str]:
        flags = {
            "etcd-servers": f"http://{HOST}:{self.etcd}",
            "bind-address": HOST,
            "secure-port": self.port,
            "advertise-address": HOST,
            "endpoint-reconciler-type": "none",
            "cert-dir": self.folder,
            "tls-cert-file": self.certificate,
            "tls-private-key-file": self.folder / "server.key",
            "client-ca-file": self.certificate,
            "token-auth-file": self.folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-cluster-ip-range": "10.96.0.0/16",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self.folder / "server.key",
            "service-account-signing-key-file": self.folder / "server.key",
        }
        return _flags(flags)

    def _controller_manager(self) -> list[str]:
        flags = {
            "kubeconfig": self.kubeconfig(ADMIN),
            "bind-address": HOST,
            "secure-port": self.controllers,
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self.folder / "server.key",
            "root-ca-file": self.certificate,
            "controllers": ",".join(["*", *(f"-{name}" for name in CONTROLLERS)]),
            "horizontal-pod-autoscaler-sync-period": "1s",
            "kube-api-qps": "500",
            "kube-api-burst": "1000",
        }
        return _flags(flags)

    def _run(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(self.assets / name), *arguments], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )


def missing() -> str | None:
    """Why there can be no control plane here, and how to get one; None: there can."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    remedy = "a folder with etcd, kube-apiserver and kube-controller-manager, see `setup-envtest use -p path`"
    if not folder:
        return f"KUBEBUILDER_ASSETS is not set: {remedy}"
    lacking = [n for n in ("etcd", "kube-apiserver", "kube-controller-manager") if not (Path(folder) / n).exists()]
    return f"KUBEBUILDER_ASSETS={folder} lacks {', '.join(lacking)}: {remedy}" if lacking else None


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A running control plane."""
    plane = ControlPlane(Path(os.environ["KUBEBUILDER_ASSETS"]), folder)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop_all()
        shutil.rmtree(folder / "etcd", ignore_errors=True)


def _flags(flags: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def _make_keys(folder: Path) -> None:
    """A certificate that is its own authority, and its key, which signs service accounts too."""
    names = "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost"
    files = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")]
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    subprocess.run([*request, "-addext", names, *files], check=True, capture_output=True)


def _wait(what: str, is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(requests.RequestException):
            if is_there():
                return
        time.sleep(0.1)
    raise RuntimeError(f"{what} did not start in {START_S:g} s")

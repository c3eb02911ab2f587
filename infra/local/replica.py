"""Start one Triton server of the local fleet: ``replica.py FLEET_FOLDER SLOT``.

It runs in Triton's own environment, so it imports nothing but the standard library and finds the server beside itself.
It becomes the server (exec): whoever started it holds the server's own process id.
"""

import contextlib
import json
import os
import re
import signal
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
SETTLE_S = 1.0
"""Before a server that ended starts again: the gateway's health checks (every 0.5 s) see it gone first, so no request
meets a server that is up but has not loaded its models yet."""
REGION = re.compile(r"triton_python_backend_shm_region_[0-9a-f-]+")


def main(folder: Path, slot_name: str) -> None:
    state = json.loads((folder / "fleet.json").read_text())
    slot = next(slot for slot in state["slots"] if slot["name"] == slot_name)
    owner = f"LOCAL_FLEET_REPLICA={folder / slot_name}"
    started = folder / "run" / slot_name
    started.parent.mkdir(exist_ok=True)
    if started.exists():
        clear_stubs(owner)
        time.sleep(SETTLE_S)
    started.touch()
    site_packages = Path(sysconfig.get_path("purelib"))
    server = site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    os.execve(server, [str(server), *arguments(folder, slot)], environment(site_packages, owner))


def arguments(folder: Path, slot: dict[str, Any]) -> list[str]:
    secret = (folder / "control.secret").read_text().strip()
    return [
        f"--model-repository={folder / 'repository'}",
        f"--backend-directory={folder / 'backends'}",
        "--model-control-mode=explicit",
        # a load takes 0.2 s with it and 2 s without; given a value, the server does not start
        "--disable-auto-complete-config",
        # else the server says that it is not ready whenever a model loads
        "--strict-readiness=false",
        "--exit-timeout-secs=5",
        "--metrics-interval-ms=1000",
        # the control endpoints can run code: gRPC stays on loopback, HTTP is behind the gateway and needs the secret
        f"--http-restricted-api=model-repository,model-config,shared-memory,trace,logging:{secret}",
        f"--http-address={HOST}",
        f"--grpc-address={HOST}",
        f"--metrics-address={HOST}",
        f"--http-port={slot['http']}",
        f"--grpc-port={slot['grpc']}",
        f"--metrics-port={slot['metrics']}",
    ]


def environment(site_packages: Path, owner: str) -> dict[str, str]:
    """The Python backend's stub takes the first python3 in PATH; libpython may lie in the environment's own ``lib``."""
    libraries = (sysconfig.get_config_var("LIBDIR"), site_packages.parents[1], site_packages / "nvidia_pytriton.libs")
    return os.environ | {
        **dict([owner.split("=", 1)]),
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # a __pycache__ in a model's folder would make its next load a reload
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "",
        # few arenas keep a copy's memory what it is declared to be
        "MALLOC_ARENA_MAX": "2",
    }


def clear_stubs(owner: str) -> None:
    """End the Python stubs that this slot's killed server left behind, and remove their shared memory."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            region = REGION.search((process / "cmdline").read_bytes().decode(errors="replace"))
            if region and owner.encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
                (Path("/dev/shm") / region.group()).unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""What a fleet may leave behind when its processes are killed: other processes, and shared memory."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from infra.local.programs import FLEET_VARIABLE

END_S = 10.0
SHARED_MEMORY = Path("/dev/shm")
REGION = "triton_python_backend_shm_region_"
LEAK_S = 60.0
"""A region of shared memory this old, which no process has mapped, is nobody's."""


class LeftoverError(Exception):
    """A process of the fleet does not end; the text names it."""


def processes(folder: Path) -> list[int]:
    """Every process that the fleet in this folder started, by what they inherited."""
    mark = f"{FLEET_VARIABLE}={folder}".encode()
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]


def end_processes(folder: Path) -> None:
    """End what lost its supervisor: nothing can adopt it.

    Raises:
        LeftoverError: something does not end.
    """
    for pid in processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + END_S
    while processes(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    if processes(folder):
        raise LeftoverError(f"still running: {', '.join(map(str, processes(folder)))}")


def shared_memory(folder: Path) -> list[Path]:
    """Of the fleet's Python stubs, which do not always remove it when they end."""
    found = []
    for pid in processes(folder):
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            found += [SHARED_MEMORY / argument for argument in arguments if argument.startswith(REGION)]
    return found


def remove_leaked_memory(now: float | None = None) -> None:
    """Remove the shared memory that killed Python stubs left: regions that no process has mapped."""
    now = time.time() if now is None else now
    old = [
        path
        for path in SHARED_MEMORY.glob(f"{REGION}*")
        if path.owner() == Path("/proc/self").owner() and now - path.stat().st_mtime > LEAK_S
    ]
    if not old:
        return
    mapped = set()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            maps = (process / "maps").read_text() if process.name.isdigit() else ""
            mapped |= {path for path in old if str(path) in maps}
    for path in set(old) - mapped:
        path.unlink(missing_ok=True)

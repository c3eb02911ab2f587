"""Memory that a replica takes: the GPU's where it has one, else what its processes hold on this machine."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from tasks.world import Replica

SETTLE_S = 2.5
"""Triton reads its GPUs' memory every 2 s unless told otherwise, as the local fleet's servers are (1 s)."""
TIMEOUT_S = 2.0
GPU_USED = re.compile(r"^nv_gpu_memory_used_bytes\{.*\} (\S+)$", re.MULTILINE)


def used_bytes(replica: Replica) -> int | None:
    """Bytes in use now; of use only as a difference, on a replica that nothing else is done with.

    GPU: Triton's ``nv_gpu_memory_used_bytes``, all its devices together. CPU: the anonymous memory of the server's
    process and of those that it started (Python stubs). None: neither can be read from here.
    """
    on_gpu = gpu_used_bytes(_metrics(replica))
    if on_gpu is not None:
        return on_gpu
    pids = process_tree(replica)
    return sum(map(_anonymous_bytes, pids)) if pids else None


def has_gpu(replica: Replica) -> bool:
    """Whether its memory is that of a GPU."""
    return gpu_used_bytes(_metrics(replica)) is not None


def gpu_used_bytes(metrics: str) -> int | None:
    """Sum over the devices of a server's metrics page; None: it has no GPU."""
    values = [float(value) for value in GPU_USED.findall(metrics)]
    return int(sum(values)) if values else None


def process_tree(replica: Replica) -> list[int]:
    """The server that listens on the replica's control port, if it runs on this machine, and all that it started."""
    host, _, port = replica.grpc.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return []
    flag, parents, found = f"--grpc-port={port}".encode(), {}, []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(process.name)
            # after the command's name, which may hold blanks and brackets: state, parent
            parents[pid] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if flag in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return _with_children(found, parents.items())


def _with_children(roots: list[int], parents: Iterable[tuple[int, int]]) -> list[int]:
    found, links = list(roots), list(parents)
    for parent in found:
        found.extend(pid for pid, its_parent in links if its_parent == parent and pid not in found)
    return found


def _anonymous_bytes(pid: int) -> int:
    """0: it just ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
    return 0


def _metrics(replica: Replica) -> str:
    if not replica.metrics:
        return ""
    with closing(http.client.HTTPConnection(replica.metrics, timeout=TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""

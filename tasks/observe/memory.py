"""Memory that a replica takes, and each of its copies where that can be told copy by copy.

Of a replica: the GPU's where it has one, else what its processes hold on this machine. Of a copy: what its backend
reports, else a Python model's processes on this machine. A backend without a report on a GPU, or on another machine,
tells nothing of its copies: there the profile flow measures, and nothing is learned while serving.
"""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tasks.clients.triton import Triton, TritonError
from tasks.world import Replica, ReplicaState

SETTLE_S = 2.5
"""Triton reads its GPUs' memory every 2 s unless told otherwise, as the local fleet's servers are (1 s)."""
TIMEOUT_S = 2.0
AT_ONCE = 16
"""Replicas asked at the same time."""
LOCAL = ("127.0.0.1", "localhost")
STUB = "triton_python_backend_stub"
"""The process of a Python model. Its first argument is the file that it runs: REPOSITORY/MODEL/VERSION/model.py."""
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
    """Whether its memory is that of a GPU.

    Its own page says so from its first moment, here in less than a millisecond. Prometheus would a scrape later, and
    where that is down, the processes of Python models would pass for what they take of a GPU.
    """
    return gpu_used_bytes(_metrics(replica)) is not None


def gpu_used_bytes(metrics: str) -> int | None:
    """Sum over the devices of a server's metrics page; None: it has no GPU."""
    values = [float(value) for value in GPU_USED.findall(metrics)]
    return int(sum(values)) if values else None


def read_copy_bytes(replicas: Iterable[Replica]) -> dict[tuple[str, str], int]:
    """Bytes by model and replica, of the copies in ready replicas that can be told apart; others are left out."""
    ready = [replica for replica in replicas if replica.state is ReplicaState.READY]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="memory") as pool:
        answers = pool.map(_reported_bytes, ready)
        reported = {(m, r.name): used for r, found in zip(ready, answers, strict=True) for m, used in found.items()}
    return _stub_bytes(ready) | reported


def _reported_bytes(replica: Replica) -> dict[str, int]:
    """By model, where its backend reports it."""
    try:
        with Triton(replica) as triton:
            return triton.memory_bytes()
    except TritonError:
        return {}  # it is looked at again in the next tick


def _stub_bytes(replicas: Iterable[Replica]) -> dict[tuple[str, str], int]:
    """Anonymous memory of each Python model's processes, in the replicas of this machine that have no GPU."""
    local = {f"--grpc-port={r.grpc.rpartition(':')[2]}": r for r in replicas if r.grpc.rpartition(":")[0] in LOCAL}
    servers: dict[int, str] = {}
    stubs: list[tuple[int, str]] = []
    for pid, command in _commands() if local else ():
        if (flag := next(filter(local.__contains__, command), None)) is not None:
            if not has_gpu(local[flag]):
                servers[pid] = local[flag].name
        elif (model := model_of(command)) is not None:
            stubs.append((pid, model))
    found: dict[tuple[str, str], int] = {}
    for pid, model in stubs:
        if (replica := servers.get(_parent(pid))) is not None:
            found[model, replica] = found.get((model, replica), 0) + _anonymous_bytes(pid)
    return found


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Every process of this machine and its arguments."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            yield int(process.name), (process / "cmdline").read_bytes().decode(errors="replace").split("\0")


def model_of(command: list[str]) -> str | None:
    """The model whose stub this is; None: it is none."""
    if len(command) < 2 or Path(command[0]).name != STUB:
        return None
    parts = Path(command[1]).parts
    return parts[-3] if len(parts) > 2 else None


def process_tree(replica: Replica) -> list[int]:
    """The server that listens on the replica's control port, if it runs on this machine, and all that it started."""
    host, _, port = replica.grpc.rpartition(":")
    if host not in LOCAL:
        return []
    commands = dict(_commands())
    servers = [pid for pid, command in commands.items() if f"--grpc-port={port}" in command]
    return _with_children(servers, [(pid, _parent(pid)) for pid in commands])


def _parent(pid: int) -> int:
    """0: it just ended."""
    with contextlib.suppress(OSError):
        # after the command's name, which may hold blanks and brackets: state, parent
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


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

"""What the servers of a fleet take of the machine, from the kernel's own account of their processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infra.local.leftovers import processes

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_s_by_pid(folder: Path) -> dict[int, float]:
    """CPU seconds that each process of the fleet in this folder has taken since it started, system time included."""
    taken = {}
    for pid in processes(folder):
        with suppress(OSError):
            # proc(5): utime and stime are fields 14 and 15; the name, field 2, may hold spaces and ends with ")"
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            taken[pid] = (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
    return taken


def cpu_share(looks: Sequence[tuple[float, Mapping[int, float]]], cores: int) -> float:
    """Share of the machine's ``cores`` that was taken between the first look and the last; 0: fewer than two looks.

    A look is a time (s) and the CPU seconds by process id. A process that came later counts from its start, one that
    ended until the last look that saw it. Worked: one process from 10 to 14 s, and one that came and took 2 s, in 10 s
    on two cores: 6 / 20 = 30 %.
    """
    if len(looks) < 2:
        return 0.0
    (start, first), (end, _) = looks[0], looks[-1]
    last: dict[int, float] = {}
    for _, taken in looks:
        last |= taken
    return sum(seconds - first.get(pid, 0.0) for pid, seconds in last.items()) / ((end - start) * cores)

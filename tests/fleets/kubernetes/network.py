"""A network of the tests' own, in which real servers listen on the pods' addresses."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW_NETWORK = 0x40000000
"""CLONE_NEWNET."""
PODS = "10.244.0.0/16"


@contextmanager
def own_network() -> Iterator[None]:
    """This thread, and what it starts from now on, is in a network of nothing but loopback, with every pod's address on
    it; at the end it is back where it was. EndpointSlices refuse addresses of 127.0.0.0/8.

    Raises:
        OSError: that takes root, also one of a user namespace, and ``ip``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if libc.unshare(NEW_NETWORK):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            for command in ("link set lo up", f"addr add {PODS} dev lo"):
                done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
                if done.returncode:
                    raise OSError(f"ip {command}: {done.stderr}")
            yield
        finally:
            libc.setns(before.fileno(), 0)

"""A run in a process of its own, so that whoever drives it does not delay its arrivals."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path

from infra.load.open_loop import Options, Progress
from infra.load.profile import Mark, Profile
from infra.load.report import Report

ROOT = Path(__file__).parents[2]


class LoadDiedError(Exception):
    """The load's process ended without a report."""


class Background:
    """A run under way. Callbacks are called from threads of this process."""

    def __init__(self, profile: Profile, gateway: str, options: Options) -> None:
        self._options = options
        self._report: Report | None = None
        self._connection, child = Pipe()
        command = [sys.executable, "-m", "infra.load.child", str(child.fileno())]
        # a session of its own: Ctrl-C reaches only the parent, which decides what it means
        self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[child.fileno()], start_new_session=True)
        child.close()
        self._connection.send((profile, gateway, options.timeout_s))
        self._reader = threading.Thread(target=self._read, name="load-events", daemon=True)
        self._reader.start()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        self._connection.close()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None and self._report is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> Report:
        """The report, when the run is over.

        Raises:
            LoadDiedError: the process ended without one.
        """
        self._reader.join()
        code = self._process.wait()
        if self._report is None:
            raise LoadDiedError(f"the load generator ended with exit code {code} and no report")
        return self._report

    def stop(self) -> Report:
        """End the run early and return its report; those in flight are waited for. After its end: as ``wait``."""
        with contextlib.suppress(OSError):  # it is over already
            self._connection.send("stop")
        return self.wait()

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self._report is None:
                self._handle(self._connection.recv())

    def _handle(self, event: Mark | Progress | Report) -> None:
        if isinstance(event, Report):
            self._report = event
        elif isinstance(event, Mark) and self._options.on_mark:
            # a thread each: a slow mark must not hold up the next, nor the report
            threading.Thread(
                target=self._options.on_mark, args=(event,), name=f"mark-{event.verb}", daemon=True
            ).start()
        elif isinstance(event, Progress) and self._options.on_progress:
            self._options.on_progress(event)


def start(
    profile: Profile,
    gateway: str,
    *,
    timeout_s: float = 30.0,
    on_mark: Callable[[Mark], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Background:
    """Start a run in a process of its own; end it with ``stop`` or await it with ``wait``."""
    return Background(profile, gateway, Options(timeout_s, on_mark, on_progress))

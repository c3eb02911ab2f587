"""A run in a process of its own, so that whoever drives it does not delay its arrivals."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from infra.load.open_loop import Options, Progress, run
from infra.load.profile import Mark, Profile
from infra.load.report import Report


class LoadDiedError(Exception):
    """The load's process ended without a report."""


class Background:
    """A run under way. Callbacks are called from a thread of this process."""

    def __init__(self, profile: Profile, gateway: str, options: Options) -> None:
        # spawned, not forked: the parent may have threads and event loops of its own
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(
            target=_main, args=(child, profile, gateway, options.timeout_s), name="load", daemon=True
        )
        self._options = options
        self._report: Report | None = None
        self._process.start()
        child.close()
        self._reader = threading.Thread(target=self._read, name="load-events", daemon=True)
        self._reader.start()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive() and self._report is None

    def wait(self) -> Report:
        """The report, when the run is over.

        Raises:
            LoadDiedError: the process ended without one.
        """
        self._reader.join()
        self._process.join()
        if self._report is None:
            raise LoadDiedError(f"the load generator ended with exit code {self._process.exitcode} and no report")
        return self._report

    def stop(self) -> Report:
        """End the run early and return its report; those in flight are waited for. After its end: as ``wait``."""
        with contextlib.suppress(OSError):  # it is over already
            self._connection.send("stop")
        return self.wait()

    def _read(self) -> None:
        try:
            while self._report is None:
                self._handle(self._connection.recv())
        except (EOFError, OSError):
            return

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


def _main(connection: Connection, profile: Profile, gateway: str, timeout_s: float) -> None:
    # Ctrl-C reaches the whole group: the parent decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_run(connection, profile, gateway, timeout_s))


async def _run(connection: Connection, profile: Profile, gateway: str, timeout_s: float) -> None:
    stop, loop, lock = asyncio.Event(), asyncio.get_running_loop(), threading.Lock()

    def tell(event: Mark | Progress) -> None:
        with lock:  # marks come from another thread than progress
            connection.send(event)

    def stopped() -> None:
        """The parent said stop, or is gone."""
        loop.remove_reader(connection.fileno())
        stop.set()

    loop.add_reader(connection.fileno(), stopped)
    report = await run(profile, gateway, Options(timeout_s, on_mark=tell, on_progress=tell, stop=stop))
    loop.remove_reader(connection.fileno())
    with contextlib.suppress(BrokenPipeError):  # nobody is left to read it
        connection.send(report)

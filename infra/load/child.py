"""The process of a background run: takes a profile from the connection that it inherits, gives marks, progress and the
report back."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from multiprocessing.connection import Connection

from infra.load.open_loop import Options, Progress, run
from infra.load.profile import Mark


async def _run(connection: Connection) -> None:
    profile, gateway, timeout_s = connection.recv()
    stop, loop, lock = asyncio.Event(), asyncio.get_running_loop(), threading.Lock()

    def tell(event: Mark | Progress) -> None:
        # marks come from another thread than progress; a parent that is gone has closed the connection
        with lock, contextlib.suppress(OSError):
            connection.send(event)

    def stopped() -> None:
        """The parent said stop, or is gone."""
        loop.remove_reader(connection.fileno())
        stop.set()

    loop.add_reader(connection.fileno(), stopped)
    report = await run(profile, gateway, Options(timeout_s, on_mark=tell, on_progress=tell, stop=stop))
    loop.remove_reader(connection.fileno())
    with contextlib.suppress(OSError):
        connection.send(report)


if __name__ == "__main__":
    asyncio.run(_run(Connection(int(sys.argv[1]))))

"""The listener's loop: look, compare with what was told, tell, remember."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.fleets import FleetUnreadableError
from tasks.watch import memory
from tasks.watch.changes import UNSERVED, Change, changes, remembered
from tasks.watch.sources import Source
from tasks.watch.tell import NotToldError

log = logging.getLogger(__name__)

SETTLE_S = 0.3
"""What changes within this long of a first change is told together with it."""
RETRY_S = 2.0
"""Until the next try when the fleet or the Prefect server did not answer."""

Tell = Callable[[Sequence[Change]], None]


def listen(source: Source, tell: Tell, path: Path, quiet_s: float, is_over: threading.Event) -> None:
    """Look at the fleet whenever something changes, and tell what did, until ``is_over``.

    What was told is kept in the file ``path`` once it was taken: what could not be told, or happened while nobody
    listened, is told at the next look. ``quiet_s``: a model whose requests find no copy is told once in this long, as
    often as the schedule would look after it anyway.
    """
    known, told_at = memory.read(path), dict[str, float]()
    while not is_over.is_set():
        try:
            memory.beat(path)
            now = source.look()
            found = [c for c in changes(known, now) if not _is_quiet(c, told_at, quiet_s)]
            if found:
                tell(found)
            for change in found:
                if change.event == UNSERVED:
                    told_at[change.subject] = time.monotonic()
                log.info("%s %s: %s", change.event, change.subject, change.text)
            if (kept := remembered(known, now)) != known:
                known = kept
                memory.write(path, known)
        except (FleetUnreadableError, OSError) as error:
            log.warning("the fleet cannot be read: %s", error)
            is_over.wait(RETRY_S)
        except NotToldError as error:
            log.warning("the Prefect server does not take events, they are told later: %s", error)
            is_over.wait(RETRY_S)
        if source.wait():
            is_over.wait(SETTLE_S)


def _is_quiet(change: Change, told_at: dict[str, float], quiet_s: float) -> bool:
    last = told_at.get(change.subject) if change.event == UNSERVED else None
    return last is not None and time.monotonic() - last < quiet_s

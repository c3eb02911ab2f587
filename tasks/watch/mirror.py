"""One kind of object of a cluster, kept as the API server has it: a list, then a watch, and a list again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tasks.fleets.kubernetes.api import Api, ApiError
from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.pods import name_of

log = logging.getLogger(__name__)

WATCH_S = 60.0
"""A connection that died in silence is noticed this much later, at the latest."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


class Mirror:
    """Follows in a thread of its own, from ``start`` on; a daemon, so that nobody need wait for its last watch.

    Whatever ends a watch, a version that is too old (410), a lost connection, a restart of the API server, the whole
    list is read again: what changed in between is a difference between two snapshots, as every change is.
    """

    def __init__(self, api: Api, path: str, on_change: Callable[[], None], **selectors: str) -> None:
        self._api, self._path, self._on_change, self._selectors = api, path, on_change, selectors
        self._lock = threading.Lock()
        self._items: dict[str, Json] = {}
        self._over = threading.Event()
        self._is_blind = False

    def start(self) -> None:
        """List, then follow.

        Raises:
            ApiError: it cannot be listed, for example since a right is missing.
        """
        version = self._list()
        name = f"watch-{self._path.rpartition('/')[2]}"
        threading.Thread(target=self._follow, args=(version,), name=name, daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def items(self) -> list[Json]:
        """What there is.

        Raises:
            RuntimeError: nobody follows any more, by a fault that no list repairs: to start again beats being blind.
        """
        if self._is_blind:
            raise RuntimeError(f"{self._path} is not followed any more")
        with self._lock:
            return list(self._items.values())

    def _list(self) -> str:
        items, version = self._api.items_and_version(self._path, **self._selectors)
        with self._lock:
            self._items = {name_of(item): item for item in items}
        self._on_change()
        return version

    def _follow(self, version: str) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._over.is_set():
            try:
                version = self._watch(version or self._list())
                pause_s = FIRST_PAUSE_S
            except ApiError as error:
                log.warning("watch interrupted, listing again: %s", error)
                version = ""
                self._over.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except Exception:
                self._is_blind = True
                raise

    def _watch(self, version: str) -> str:
        """Follow from a version until the watch's time is up; the version from which the next goes on."""
        for change in self._api.watch(self._path, version, WATCH_S, **self._selectors):
            item = change["object"]
            version = item["metadata"]["resourceVersion"]
            if change["type"] == "BOOKMARK":
                continue
            with self._lock:
                if change["type"] == "DELETED":
                    self._items.pop(name_of(item), None)
                else:
                    self._items[name_of(item)] = item
            self._on_change()
        return version

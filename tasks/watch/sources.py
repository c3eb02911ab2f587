"""Where a listener looks: one small interface, one file for each place where replicas run."""

from __future__ import annotations

from typing import Protocol

from tasks.config import Config
from tasks.watch.changes import Snapshot


class Source(Protocol):
    """A fleet, as a listener sees it."""

    def look(self) -> Snapshot:
        """The fleet as it is now.

        Raises:
            FleetUnreadableError, OSError: it cannot be read.
        """

    def wait(self) -> bool:
        """Until something may have changed, or it is time to look anyway. True: something did, and more may follow."""


def source(config: Config) -> Source:
    """That of the fleet which the configuration names.

    Raises:
        FleetUnreadableError: it cannot be read.
    """
    if config.fleet.kind == "kubernetes":
        from tasks.watch.kubernetes import KubernetesSource

        return KubernetesSource(config)
    from tasks.watch.local import LocalSource

    return LocalSource(config)

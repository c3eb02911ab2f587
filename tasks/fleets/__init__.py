"""The fleet behind the tick: one small interface, one file for each place where replicas run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from tasks.config import Config
from tasks.decision import Tick
from tasks.world import Model, Pool, Replica


class FleetUnreadableError(Exception):
    """The list of replicas or routes cannot be read: the tick ends before it acts."""


class FleetBusyError(Exception):
    """Another tick acts, and did not finish in the time that was given."""


class LiveFleet(Protocol):
    """Replicas, their scaling and their routing. Every call is idempotent; every call raises ``FleetUnreadableError``
    or ``OSError`` with the cause and the remedy when it cannot do its work. A fleet inherits from it: what has a body
    here is right where nothing else is known."""

    prometheus_url: str
    pushgateway_url: str
    splits_by_weight: bool = False
    """Whether the gateway sends copies the shares that their weights say; else it splits requests evenly."""
    linger_s: float = 0.0
    """How long clients may use a connection to a replica after ``unroute`` has returned."""

    def pools(self) -> tuple[Pool, ...]:
        """The configured pools with the count asked for now."""

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica that should be there or still is, starting, ready, leaving or unreachable."""

    def routes(self) -> Mapping[str, frozenset[str]]:
        """Replica names that the gateway sends each model's requests to."""

    def weights(self) -> Mapping[str, Mapping[str, float]]:
        """By model and replica, the weight of each routed copy; one that is missing has 1."""
        return {}

    def failing_copies(self) -> Mapping[tuple[str, str], str]:
        """(model, replica) whose requests the gateway sees fail, with what it saw. Empty: none, or it cannot tell."""

    def declare(self, models: Iterable[Model]) -> None:
        """Make every model known to the gateway, so that its requests are counted even while it has no copy."""

    def route(self, model: str, replica: str) -> None:
        """Send requests of the model to the replica too; return when the gateway does so."""

    def unroute(self, model: str, replica: str) -> None:
        """Send no request of the model to the replica; return when the gateway sends none."""

    def weigh(self, model: str, weights: Mapping[str, float]) -> None:  # noqa: ARG002
        """Give the model's routed copies in these replicas other weights, all at once; return when the gateway uses
        them."""
        raise OSError(f"{model}: this gateway splits requests evenly")

    def scale_up(self, pool: str, count: int) -> None:
        """Ask for ``count`` replicas in the pool; never fewer than there are."""

    def scale_down(self, replica: str) -> None:
        """Remove this one, emptied, replica."""

    def exclusive(self, timeout_s: float) -> AbstractContextManager[None]:
        """Only one tick acts: wait for the other at most ``timeout_s``, then raise ``FleetBusyError``."""

    def still_exclusive(self) -> bool:
        """Whether ``exclusive`` still holds, asked before each step. A lock that cannot be lost needs no answer."""
        return True

    def tell(self, tick: Tick) -> None:  # noqa: ARG002
        """Say what the tick did, and could not do, where those who run the fleet look for it. Never raises."""
        return


def connect(config: Config) -> LiveFleet:
    """The fleet that the configuration names."""
    if config.fleet.kind == "kubernetes":
        from tasks.fleets.kubernetes import KubernetesFleet

        return KubernetesFleet(config)
    from tasks.fleets.local import LocalFleet

    return LocalFleet(config)

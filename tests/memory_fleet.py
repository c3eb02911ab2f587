"""A fleet in memory: replicas as given, routes in a dictionary. For tests of what stands on a fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from tasks.fleets import LiveFleet
from tasks.world import Model, Pool, Replica


class MemoryFleet(LiveFleet):
    """Does what is asked, at once, and keeps a list of it in ``done``."""

    prometheus_url = "http://127.0.0.1:9"  # the discard port: nobody answers there
    pushgateway_url = prometheus_url

    def __init__(self, *replicas: Replica, routes: Mapping[str, Iterable[str]] | None = None) -> None:
        self.replicas_now = list(replicas)
        self.routes_now = {model: set(targets) for model, targets in (routes or {}).items()}
        self.weights_now: dict[str, dict[str, float]] = {}
        self.pool = Pool("small", "small", 10**9, max_replicas=4, replicas=len(replicas))
        self.failing: dict[tuple[str, str], str] = {}
        self.done: list[str] = []

    def pools(self) -> tuple[Pool, ...]:
        return (self.pool,)

    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self.replicas_now)

    def routes(self) -> Mapping[str, frozenset[str]]:
        return {model: frozenset(targets) for model, targets in self.routes_now.items()}

    def weights(self) -> Mapping[str, Mapping[str, float]]:
        return self.weights_now

    def failing_copies(self) -> Mapping[tuple[str, str], str]:
        return self.failing

    def declare(self, models: Iterable[Model]) -> None:
        for model in models:
            self.routes_now.setdefault(model.name, set())

    def route(self, model: str, replica: str) -> None:
        self.routes_now.setdefault(model, set()).add(replica)
        self.done.append(f"route {model} {replica}")

    def unroute(self, model: str, replica: str) -> None:
        self.routes_now[model].discard(replica)
        self.done.append(f"unroute {model} {replica}")

    def weigh(self, model: str, weights: Mapping[str, float]) -> None:
        self.weights_now[model] = dict(weights)
        self.done.append(f"weigh {model}")

    def scale_up(self, pool: str, count: int) -> None:
        self.pool = replace(self.pool, replicas=count)
        self.done.append(f"scale_up {pool} {count}")

    def scale_down(self, replica: str) -> None:
        self.replicas_now = [r for r in self.replicas_now if r.name != replica]
        self.done.append(f"scale_down {replica}")

    def exclusive(self, timeout_s: float) -> AbstractContextManager[None]:
        return nullcontext()

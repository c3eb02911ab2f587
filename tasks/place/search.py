"""Where a copy could go: the roomiest replica that every rule allows, else a replica that a pool could add."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from tasks.place.board import Board, Load, Spot
from tasks.place.filters import CAPACITY, Candidate, is_allowed, is_not_backing_off, refusal, retry_at
from tasks.world import LoadFailure


@dataclass(slots=True)
class Search:
    """Judges spots for copies; it changes nothing but the board's list of spots, when a pool grows."""

    board: Board
    now: float
    interval_s: float
    failure_by_copy: dict[tuple[str, str], LoadFailure]
    routed: frozenset[tuple[str, str]]
    """(model, replica) that requests reach, whatever is there: a restarted replica gets its models back first."""
    unused: list[Spot] = field(default_factory=list)
    """Replicas that pools could still add."""

    def find(self, model: str, without: Collection[str] = (), margin: float = 0.0) -> Spot | None:
        """The best spot among those on the board. First one that has the memory now, then one that will have it once
        what should not be there is unloaded."""
        for counts_going in (True, False):
            judged = list(self._judge(model, counts_going, margin=margin))
            fits = [c.spot for c in judged if c.spot.name not in without and not refusal(c)]
            if fits:
                return min(fits, key=lambda spot: self._order(model, spot))
        return None

    def find_slow(self, model: str) -> Spot | None:
        """For a model's first copy: a spot without the compute, when no other has it."""
        fits = [c.spot for c in self._judge(model, counts_going=False, is_first=True) if not refusal(c)]
        return min(fits, key=lambda spot: self._order(model, spot), default=None)

    def grow(self, model: str, ours: bool) -> Spot | None:
        """The cheapest replica that a pool could add, put on the board. None too where it is only a failed load that
        keeps the copy out of a replica: a new replica would not mend the model."""
        if self.retry_s(model) is not None:
            return None
        usable = [s for s in self.unused if is_allowed(self.board, model, s) and s.pool.is_scaled_by_us is ours]
        fits = [s for s in usable if not refusal(self._candidate(model, s, counts_going=True))]
        spot = min(
            fits, key=lambda s: (s.pool.cost_per_hour, s.pool.name, int(s.name.rpartition("+")[2])), default=None
        )
        if spot is not None:
            self.unused.remove(spot)
            self.board.spots[spot.name] = spot
        return spot

    def retry_s(self, model: str) -> float | None:
        """Seconds until the soonest retry where only a failed load keeps the model out; None: there is no such spot."""
        return min((c.retry_at - self.now for c in self._awaited(model)), default=None)

    def awaited(self, model: str) -> set[str]:
        """The replicas that only a failed load keeps the model out of: given up, they would come back for its retry."""
        return {c.spot.name for c in self._awaited(model)}

    def refusals(self, model: str) -> str:
        """Why each replica refuses the model, in one line."""
        judged = [(c.spot.name, refusal(c)) for c in self._judge(model, counts_going=False)]
        return "; ".join(f"{name}: {why}" for name, why in judged if why) or "no replica in its pools"

    def fits_without(self, model: str, spot: Spot, victims: Collection[str]) -> bool:
        """Whether the copy would fit if these models left the spot."""
        rest = {name: load for name, load in spot.load_by_model.items() if name not in victims}
        trial = Spot(spot.name, spot.pool, spot.memory_bytes, spot.compute, closed=spot.closed, load_by_model=rest)
        return not refusal(self._candidate(model, trial, counts_going=False))

    def _awaited(self, model: str) -> list[Candidate]:
        judged = self._judge(model, counts_going=False, is_first=True)
        return [c for c in judged if not refusal(c, CAPACITY) and is_not_backing_off(c)]

    def _judge(
        self, model: str, counts_going: bool, is_first: bool = False, margin: float = 0.0
    ) -> Iterator[Candidate]:
        for spot in self.board.spots.values():
            if is_allowed(self.board, model, spot):
                yield self._candidate(model, spot, counts_going, is_first, margin)

    def _candidate(
        self, model: str, spot: Spot, counts_going: bool, is_first: bool = False, margin: float = 0.0
    ) -> Candidate:
        load = self.board.load(model, spot)
        return Candidate(
            model=self.board.model_by_name[model],
            load=Load(load.memory_bytes, load.compute * (1 + margin)),
            spot=spot,
            is_first=is_first,
            counts_going=counts_going and model not in spot.going_by_model,
            retry_at=retry_at(self.failure_by_copy.get((model, spot.name)), self.interval_s),
            now=self.now,
        )

    def _order(self, model: str, spot: Spot) -> tuple[object, ...]:
        """Best first: where its requests go already, where no load of it failed, ready, far from its other copies, in
        the emptiest, by name."""
        others = self.board.spots_of(model)
        failure = self.failure_by_copy.get((model, spot.name))
        return (
            (model, spot.name) not in self.routed,
            failure.count if failure else 0,
            not spot.is_ready,
            sum(bool(spot.zone) and other.zone == spot.zone for other in others),
            sum(bool(spot.node) and other.node == spot.node for other in others),
            round(spot.fullness_with(self.board.load(model, spot)), 9),
            spot.name,
        )

"""A plan in the making: which changes are made in this tick, and what each must wait for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks.decision import Placement, Reason, Sizing
from tasks.plan.changes import FILLED, Change, CopyKey
from tasks.world import Fleet


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is taken up so far. A value: a change that turns out impossible leaves nothing behind."""

    change_by_key: Mapping[CopyKey, Change] = field(default_factory=dict)
    """In the order in which they were taken up: each comes after all that it waits for."""
    needs: Mapping[CopyKey, tuple[CopyKey, ...]] = field(default_factory=dict)
    """What a change waits for: a load for what goes in its replica, an unroute for what comes of its model."""
    churn: int = 0
    loaded_bytes: Mapping[str, int] = field(default_factory=dict)
    """By replica: footprints that come less footprints that go before them."""
    freed: Mapping[str, tuple[CopyKey, ...]] = field(default_factory=dict)
    """By replica: the changes whose memory is counted as free; every later load there waits for all of them."""

    def with_change(self, change: Change, needs: Sequence[CopyKey]) -> Chosen:
        return replace(
            self,
            change_by_key={**self.change_by_key, change.key: change},
            needs={**self.needs, change.key: tuple(needs)},
            churn=self.churn + change.churn,
        )


class Draft:
    """Takes up changes one by one, each with those that it needs, or says why not."""

    def __init__(
        self, fleet: Fleet, placement: Placement, sizings: Sequence[Sizing], budget: int, changes: Sequence[Change]
    ) -> None:
        self.chosen = Chosen()
        self._budget = budget
        self._sizing_by_model = {sizing.model: sizing for sizing in sizings}
        self._room_bytes = _room(fleet)
        self._serving = Counter(copy.model for copy in fleet.copies if copy.is_serving)
        self._wanted = Counter(assignment.model for assignment in placement.assignments)
        self._coming: defaultdict[str, list[Change]] = defaultdict(list)
        self._going: defaultdict[str, list[Change]] = defaultdict(list)
        for change in changes:
            if change.is_coming:
                self._coming[change.model].append(change)
            else:
                self._going[change.replica].append(change)

    def take(self, change: Change) -> Reason | None:
        """Take the change up, with what it needs; or say why not. What the budget keeps out gets its room at least, so
        that a lesser change does not take the rest of the budget each time."""
        if change.key in self.chosen.change_by_key:
            return None
        if (other := self._repaired_first(change)) is not None:
            return Reason("copy_failing", f"every copy fails: one at a time, {other.replica} first")
        found = self._with(self.chosen, change, ())
        if isinstance(found, Reason):
            if found.code == "budget" and change.is_coming:
                self._begin(change)
            return found
        self.chosen = found
        return None

    def _repaired_first(self, change: Change) -> Change | None:
        """Another repair of a model that nobody serves: where all copies fail alike it is rather a client's doing, or
        the model's files', and those that a repair leaves there may still answer others."""
        if not change.is_repair or self._serving[change.model]:
            return None
        taken = self.chosen.change_by_key.values()
        return next((c for c in taken if c.is_repair and c.model == change.model), None)

    def _begin(self, change: Change) -> None:
        """Take up as many of the unloads that the load needs as the budget allows, its own if it is a repair."""
        if change.is_repair:
            self.take(change.unloaded)
        missing = 0 if change.is_filled else change.footprint_bytes - self._left(self.chosen, change.replica)
        for other in self._in_its_way(change):
            if missing <= 0:
                return
            if other.key not in self.chosen.freed.get(change.replica, ()) and self.take(other) is None:
                missing -= other.footprint_bytes

    def _in_its_way(self, change: Change) -> list[Change]:
        """What goes of the replica where it comes, and gives room, the largest first."""
        freeing = (other for other in self._going[change.replica] if other.is_freeing)
        return sorted(freeing, key=lambda other: -other.footprint_bytes)

    def _with(self, chosen: Chosen, change: Change, path: tuple[CopyKey, ...]) -> Chosen | Reason:
        """``path``: the changes that wait for this one, which it cannot wait for."""
        if change.key in chosen.change_by_key:
            return chosen
        ready = (self._with_room if change.is_coming else self._with_others)(chosen, change, (*path, change.key))
        if isinstance(ready, Reason):
            return ready
        before, needs = ready
        if change.churn and before.churn + change.churn > self._budget:
            done = f"{self.chosen.churn} of {self._budget} loads and unloads are taken"
            return Reason("budget", f"{done}, it takes {before.churn - self.chosen.churn + change.churn}")
        return before.with_change(change, needs)

    def _with_room(
        self, chosen: Chosen, change: Change, path: tuple[CopyKey, ...]
    ) -> tuple[Chosen, tuple[CopyKey, ...]] | Reason:
        """Room for a load: what there is, and what unloads in the replica give."""
        if change.is_filled:  # it takes its memory already
            return chosen, ()
        replica, why = change.replica, None
        for other in self._in_its_way(change):
            if self._left(chosen, replica) >= change.footprint_bytes:
                break
            if other.key in chosen.freed.get(replica, ()) or other.key in path:
                continue
            found = self._with(chosen, other, path)
            if isinstance(found, Reason):
                why = why or found
                continue
            chosen = replace(
                found,
                loaded_bytes=_plus(found.loaded_bytes, replica, -other.footprint_bytes),
                freed={**found.freed, replica: (*found.freed.get(replica, ()), other.key)},
            )
        left = self._left(chosen, replica)
        if left < change.footprint_bytes:
            text = f"{change.footprint_bytes / 1e6:.0f} MB > {left / 1e6:.0f} MB free in {replica}"
            return why if why and why.code == "budget" else Reason("no_room_to_swap", text)
        loaded = _plus(chosen.loaded_bytes, replica, change.footprint_bytes)
        return replace(chosen, loaded_bytes=loaded), chosen.freed.get(replica, ())

    def _left(self, chosen: Chosen, replica: str) -> int:
        return self._room_bytes[replica] - chosen.loaded_bytes.get(replica, 0)

    def _with_others(
        self, chosen: Chosen, change: Change, path: tuple[CopyKey, ...]
    ) -> tuple[Chosen, tuple[CopyKey, ...]] | Reason:
        """Others that serve before a serving copy stops: as many as should be there, at least as far as there are."""
        if not change.is_serving:
            return chosen, ()
        model, sizing = change.model, self._sizing_by_model.get(change.model)
        serving, wanted = self._serving[model], self._wanted[model]
        is_held, has_demand = sizing is None or sizing.is_held, sizing is None or sizing.demand_rps != 0
        least = serving if is_held else max(min(serving, wanted), int(has_demand))
        why: Reason | None = None
        for other in self._coming[model]:
            if self._after(chosen, model) - 1 >= least:
                break
            if other.key not in path:
                found = self._with(chosen, other, path)
                if isinstance(found, Reason):
                    why = why or found
                else:
                    chosen = found
        after = self._after(chosen, model)
        if after - 1 < least and (has_demand or (why and why.code == "budget")):
            if why is not None and why.code != "no_room_to_swap":
                return why
            text = f"{serving} serve, {wanted} wanted, {after} would serve before it goes: {least} must be left"
            return Reason("last_copy" if serving == 1 else "no_room_to_swap", text)
        return chosen, tuple(c.key for c in chosen.change_by_key.values() if c.is_coming and c.model == model)

    def _after(self, chosen: Chosen, model: str) -> int:
        """Copies of the model that serve once all that is taken up is done."""
        own = [change for change in chosen.change_by_key.values() if change.model == model]
        return self._serving[model] + sum(c.is_coming for c in own) - sum(c.is_serving for c in own)


def _room(fleet: Fleet) -> dict[str, int]:
    """Memory of each replica less its headroom and what fills it now, bytes. What is unloaded counts until it is gone;
    a copy whose footprint is not known leaves no room."""
    pools, models = fleet.pool_by_name, fleet.model_by_name
    room = {}
    gpu_type_by_replica = {replica.name: replica.gpu_type for replica in fleet.replicas}
    for replica in fleet.replicas:
        headroom = pools[replica.pool].headroom if replica.pool in pools else 0.0
        room[replica.name] = int(replica.memory_bytes * (1 - headroom))
    for copy in fleet.copies:
        if copy.state in FILLED and copy.replica in room:
            model = models.get(copy.model)
            need = model.need_by_gpu_type.get(gpu_type_by_replica[copy.replica]) if model else None
            room[copy.replica] -= need.footprint_bytes if need else room[copy.replica] + 1
    return room


def _plus(numbers: Mapping[str, int], key: str, more: int) -> dict[str, int]:
    return {**numbers, key: numbers.get(key, 0) + more}

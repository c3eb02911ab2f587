"""Where a copy could go: the roomiest replica that has the room, else a replica that a pool could add; and why not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tasks.decision import Reason
from tasks.place.problem import Flags, Floats, Ints
from tasks.place.table import SLACK, Table


def find(table: Table, model: int, extra: int = 1, margin: float = 0.0) -> int | None:
    """The best replica for one more copy. First one that has the memory now, then one that will have it once what
    should not be there is unloaded. For a copy that moves none that another autoscaler has yet to add: until then the
    copy is better where it is.

    ``extra``, ``margin``: as in :meth:`Table.has_compute`.
    """
    spots = table.problem.spots
    able = table.has_compute(model, extra, margin) & table.has_capacity(model, extra)
    if extra == 0:
        able &= spots.is_ours | ~spots.is_new
    for counts_going in (True, False) if able.any() else ():
        fine = able & table.has_memory(model, counts_going)
        if (best := best_of(table, model, np.flatnonzero(fine))) is not None:
            return best
    return None


def fits(table: Table, model: int, spot: int, extra: int = 1) -> bool:
    """Whether :func:`find` might choose this replica for one more copy, once what should not be there is unloaded."""
    able = table.has_compute(model, extra) & table.has_capacity(model, extra)
    able &= table.has_memory(model, counts_going=False)
    return bool(able[spot])


def may_find(table: Table, models: Ints, margin: float) -> Flags:
    """(len(models),) False: :func:`find` has no other replica for a copy of the model. All at once, and by memory and
    compute alone, so that True says little."""
    wants, spots = table.problem.wants, table.problem.spots
    compute = np.minimum(table.compute_of_all()[models][:, spots.pool], spots.room_compute) * (1 + margin)
    footprint = np.where(wants.is_allowed[models], wants.footprint_bytes[models], np.inf)[:, spots.pool]
    fine = (compute <= table.free_compute + SLACK) & (footprint <= table.free_bytes) & table.takes
    for row, model in enumerate(models.tolist()):
        fine[row, table.replicas_of[model]] = False
    comes_back: Flags = np.array([bool(table.going_of.get(model)) for model in models.tolist()], dtype=bool)
    return fine.any(axis=1) | comes_back


def find_urgent(table: Table, model: int) -> int | None:
    """A replica whose headroom has the compute, for a copy that cannot wait for a new one to start."""
    spots = table.problem.spots
    compute = table.compute_in(model, np.arange(len(spots.names)), 1)
    fine = table.has_memory(model) & table.has_capacity(model)
    fine &= compute <= table.free_compute + spots.compute - spots.room_compute + SLACK
    return best_of(table, model, np.flatnonzero(fine & ~spots.is_new))


def find_busy(table: Table, model: int, extra: int = 1) -> int | None:
    """A replica that has the memory, and where the model has the capacity, whatever compute is left there."""
    fine = table.has_memory(model, counts_going=False) & table.has_capacity(model, extra)
    return best_of(table, model, np.flatnonzero(fine))


def find_slow(table: Table, model: int) -> int | None:
    """A replica that has the memory, whatever else."""
    return best_of(table, model, np.flatnonzero(table.has_memory(model, counts_going=False)))


def best_of(table: Table, model: int, fine: Ints) -> int | None:
    """Best of the replicas: where its requests go already, where no load of it failed, ready, far from its other
    copies, in the pool where it costs least, the one that is emptiest then, by name. None: there is none."""
    spots, problem = table.problem.spots, table.problem
    if fine.size == 0:
        return None
    if routed := problem.routed_by_model.get(model):
        is_routed = np.zeros(len(spots.names), dtype=bool)
        is_routed[list(routed)] = True
        fine = _rather(fine, is_routed[fine])
    if failures := problem.failures_by_model.get(model):
        count_by_replica = {replica: count for replica, count, _ in failures}
        fine = _least(fine, np.array([count_by_replica.get(int(replica), 0) for replica in fine]))
    if fine.size > 1:
        fine = _rather(fine, spots.is_ready[fine])
        for group in (spots.zone, spots.node):
            fine = _apart(fine, group, table.replicas_of[model])
        fine = _cheapest(table, model, fine)
        fullness = np.round(_fullness(table, model, fine), 9)
        return int(fine[np.argmin(fullness)])
    return int(fine[0])


def _cheapest(table: Table, model: int, fine: Ints) -> Ints:
    pools = table.problem.spots.pool[fine]
    if (pools == pools[0]).all():
        return fine
    cost = np.round(table.worth.cost_by_pool(model, table.compute_by_pool(model))[pools], 9)
    cheapest: Ints = fine[cost == cost.min()]
    return cheapest


def _rather(fine: Ints, is_good: Flags) -> Ints:
    """The good ones, if there are any."""
    good: Ints = fine[is_good]
    return good if good.size else fine


def _least(fine: Ints, badness: Ints) -> Ints:
    least: Ints = fine[badness == badness.min()]
    return least


def _apart(fine: Ints, group: Ints, held: list[int]) -> Ints:
    """Those whose zone or node has fewest of the held replicas; none where that is not known."""
    known = [code for code in group[held].tolist() if code >= 0]
    if not known:
        return fine
    codes = group[fine]
    counts = np.bincount(known, minlength=int(codes.max(initial=0)) + 1)
    return _least(fine, np.where(codes >= 0, counts[codes], 0))


def _fullness(table: Table, model: int, replicas: Ints) -> Floats:
    """(len(replicas),) the larger of the shares of memory and compute that are taken with a copy of the model."""
    spots = table.problem.spots
    footprint = table.problem.wants.footprint_bytes[model][spots.pool[replicas]]
    used = spots.room_bytes[replicas] - table.free_bytes[replicas] + table.going_bytes[replicas]
    busy = spots.room_compute[replicas] - table.free_compute[replicas]
    compute = table.compute_in(model, replicas)
    share = np.maximum(spots.compute[replicas], 1e-9)
    full: Floats = np.maximum(
        (used + footprint) / np.maximum(spots.memory_bytes[replicas], 1.0), (busy + compute) / share
    )
    return full


def spread(table: Table, model: int, most: int) -> list[int]:
    """Replicas for several more copies, the fewest that all fit because each is smaller than one alone would be; at
    most ``most``. Empty: there are not so many.

    With j more copies beside k each takes demand / (k + j), so that they fit when the j-th best of the replicas that
    have the memory can take that.
    """
    problem, held = table.problem, table.count(model)
    wants, spots = problem.wants, problem.spots
    demand = wants.demand_rps[model]
    most = min(most, int(wants.max_copies[model]) - held)
    if most < 1 or not demand > 0:
        return []
    fine = np.flatnonzero(table.has_memory(model))
    device_s = np.maximum(wants.device_s[model][spots.pool[fine]], 1e-12)
    takes_rps = np.minimum(table.free_compute[fine] / device_s, wants.capacity_rps[model][spots.pool[fine]])
    best = np.argsort(-takes_rps, kind="stable")[:most]
    count = held + np.arange(1, len(best) + 1)
    enough = (takes_rps[best] >= demand / count) & (count >= wants.copies[model])
    if not enough.any():
        return []
    return [int(replica) for replica in fine[best[: int(enough.argmax()) + 1]]]


def grow(table: Table, model: int, is_ours: bool, extra: int = 1) -> int | None:
    """A replica that a pool could add, switched on; None: there is none."""
    if (replica := addable(table, model, is_ours, extra)) is not None:
        table.switch_on(replica)
    return replica


def addable(table: Table, model: int, is_ours: bool, extra: int = 1) -> int | None:
    """The cheapest replica that a pool could add. None too where it is only a failed load that keeps the copy out of a
    replica: a new replica would not mend the model."""
    spots, wants = table.problem.spots, table.problem.wants
    if retry_s(table, model) is not None:
        return None
    compute = np.minimum(table.compute_by_pool(model, extra)[spots.pool], spots.room_compute)
    footprint = np.where(wants.is_allowed[model], wants.footprint_bytes[model], np.inf)[spots.pool]
    fine = ~table.is_on & (spots.is_ours == is_ours) & (footprint <= spots.room_bytes)
    fine &= (compute <= spots.room_compute + SLACK) & table.has_capacity(model, extra)
    if not fine.any():
        return None
    names = np.array([pool.name for pool in table.problem.pools])
    candidates = np.flatnonzero(fine)
    order = np.lexsort((candidates, names[spots.pool[candidates]], spots.cost_per_hour[candidates]))
    return int(candidates[order[0]])


def retry_s(table: Table, model: int) -> float | None:
    """Seconds until the soonest retry where only a failed load keeps the model out; None: there is no such replica."""
    return min((at - table.problem.now for _, at in awaited(table, model)), default=None)


def awaited(table: Table, model: int) -> list[tuple[int, float]]:
    """The replicas that only a failed load keeps the model out of, and when it may be tried again: given up, they would
    come back for that."""
    wants, spots, now = table.problem.wants, table.problem.spots, table.problem.now
    return [
        (replica, at)
        for replica, _, at in table.problem.failures_by_model.get(model, ())
        if at > now
        and table.takes[replica]
        and replica not in table.replicas_of[model]
        and wants.is_allowed[model, spots.pool[replica]]
        and wants.footprint_bytes[model, spots.pool[replica]] <= table.free_bytes[replica]
    ]


def why_here(table: Table, model: int, spot: int) -> Reason:
    """Why a copy goes to a replica, with what it takes and what is left there before it comes."""
    wants, spots = table.problem.wants, table.problem.spots
    footprint = wants.footprint_bytes[model, spots.pool[spot]]
    memory = f"{footprint / 1e6:.0f} MB into {table.free_bytes[spot] / 1e6:.0f} MB left"
    compute = f"compute {table.compute_at(model, spot, 1):.2f} into {table.free_compute[spot]:.2f}"
    if spots.is_new[spot]:
        pool = table.problem.pools[spots.pool[spot]].name
        return Reason("replica_wanted", f"fits in no replica there is: {memory}, {compute}, in a new {pool}")
    return Reason("placed", f"{memory}, {compute}")


def refusals(table: Table, model: int, without_compute: bool = False) -> Iterator[tuple[int, str]]:
    """Each replica that may hold the model, why it does not take a copy, with its numbers; an empty text: it does."""
    problem = table.problem
    wants, spots = problem.wants, problem.spots
    failed = {replica: at for replica, _, at in problem.failures_by_model.get(model, ())}
    on = np.flatnonzero(table.is_on & wants.is_allowed[model][spots.pool])
    need, capable = table.compute_in(model, on, 1), table.has_capacity(model)
    for replica, compute in zip(on.tolist(), need.tolist(), strict=True):
        footprint, room = wants.footprint_bytes[model, spots.pool[replica]], spots.room_bytes[replica]
        taken = room - table.free_bytes[replica]
        if spots.closed[replica]:
            yield replica, spots.closed[replica]
        elif replica in table.replicas_of[model]:
            yield replica, "it holds a copy"
        elif footprint > table.free_bytes[replica]:
            yield replica, f"{footprint / 1e6:.0f} MB > {room / 1e6:.0f} - {taken / 1e6:.0f} MB"
        elif not without_compute and not capable[replica]:
            most = wants.capacity_rps[model, spots.pool[replica]]
            rate = wants.demand_rps[model] / table.divisor(model, 1)
            yield replica, f"{rate:.1f} req/s a copy > {most:.1f} within its objective there"
        elif not without_compute and compute > table.free_compute[replica] + SLACK:
            target = spots.room_compute[replica]
            busy = target - table.free_compute[replica]
            yield replica, f"compute {compute:.2f} > {target:.2f} - {busy:.2f}"
        elif failed.get(replica, 0.0) > problem.now:
            yield replica, f"its load failed, next try in {failed[replica] - problem.now:.0f} s"
        else:
            yield replica, ""

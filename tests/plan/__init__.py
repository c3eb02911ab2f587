"""Plans, copies and placements written as text, for tables."""

from __future__ import annotations

from dataclasses import replace

from tasks.decision import Assignment, Placement, Reason, Sizing, Step, StepKind
from tasks.world import Copy, CopyState, Fleet, Pool, Replica, ReplicaState
from tests.worlds import model

WHY = Reason("placed", "for the test")
MB = 10**6
POOL = Pool("small", "small", 500 * MB, min_replicas=1, max_replicas=4, replicas=3)
MODELS = (model("a", 100), model("b", 200), model("c", 400), model("d", 300), model("e", 100))


def step(text: str) -> Step:
    """``3 load a small-0 < 1 2``: step 3 needs 1 and 2. ``1 scale_up small 4``. ``2 scale_down small-0``. ``1 weigh a
    small-0 0.5 small-1 1.5``."""
    what, _, needs = text.partition(" <")
    number, kind, *rest = what.split()
    made = Step(int(number), StepKind(kind), WHY, needs=tuple(map(int, needs.split())))
    if made.kind is StepKind.SCALE_UP:
        return replace(made, pool=rest[0], count=int(rest[1]))
    if made.kind is StepKind.SCALE_DOWN:
        return replace(made, replica=rest[0], pool=rest[0].rpartition("-")[0])
    if made.kind is StepKind.WEIGH:
        return replace(made, model=rest[0], weights=tuple(zip(rest[1::2], map(float, rest[2::2]), strict=True)))
    return replace(made, model=rest[0], replica=rest[1])


def copy(text: str) -> Copy:
    """``a small-0 ready``: words after the two names are a state, ``serving`` (ready and routed), ``routed``,
    ``failing``; a number is its weight."""
    model_name, replica, *words = text.split()
    weights = [float(word) for word in words if word[0].isdigit()]
    states = [word for word in words if word not in ("serving", "routed", "failing") and not word[0].isdigit()]
    return Copy(
        model_name,
        replica,
        CopyState(states[0]) if states else CopyState.READY,
        is_routed="serving" in words or "routed" in words,
        is_failing="failing" in words,
        weight=weights[0] if weights else 1.0,
    )


def fleet(*copies: str, pool: Pool = POOL, **state_by_replica: str) -> Fleet:
    """Models a to e of 100, 200, 400, 300 and 100 MB; replicas small-0, small-1 and small-2 of 500 MB, ready unless a
    state is given as ``small_1="leaving"``."""
    states = {name.replace("_", "-"): ReplicaState(state) for name, state in state_by_replica.items()}
    names = [f"small-{n}" for n in range(3)]
    replicas = tuple(
        Replica(name, "small", "small", 500 * MB, 1.0, states.get(name, ReplicaState.READY)) for name in names
    )
    return Fleet(MODELS, (pool,), replicas, tuple(map(copy, copies)), splits_by_weight=True)


def placement(*wanted: str, leaving: tuple[str, ...] = (), replicas: int = 3) -> Placement:
    """``a small-0``: a copy that should be; ``a small-0 0.5``: with this weight."""
    words = (text.split() for text in wanted)
    assignments = tuple(Assignment(model, where, WHY, *map(float, weight)) for model, where, *weight in words)
    return Placement(assignments, {"small": replicas}, tuple((name, WHY) for name in leaving))


def sizings(**rps_by_model: float | None) -> tuple[Sizing, ...]:
    """Demand by model, 4 req/s where none is given; None: unknown."""
    rps = {"a": 4.0, "b": 4.0, "c": 4.0, "d": 4.0, "e": 4.0, **rps_by_model}
    return tuple(Sizing(name, 1, rps[name], {"small": 10.0}, WHY) for name in rps)

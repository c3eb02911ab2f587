"""What each replica has loaded, joined with where requests are sent; and which copies only seem to serve."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType

from tasks.clients.triton import SECRET_FILE, ModelStatus, Statistics, Triton, TritonError, control_secret
from tasks.fleets import FleetUnreadableError
from tasks.world import Copy, CopyState, Replica, ReplicaState, Unknown

AT_ONCE = 16
"""Replicas read at the same time: their reads take milliseconds, those that time out must not queue."""
TRIES = 2
"""A replica that cannot be read is replaced elsewhere, at a cost: one lost packet is not enough for that."""
PAUSE_S = 0.2
"""Before the second try."""

Index = Mapping[str, ModelStatus]
_STATE = {"READY": CopyState.READY, "LOADING": CopyState.LOADING, "UNLOADING": CopyState.UNLOADING}


@dataclass(frozen=True, slots=True)
class Suspect:
    """A copy all of whose requests failed lately, according to metrics that may be older than its last load."""

    model: str
    replica: str
    failed: float
    """Requests that failed in the span; none was served."""
    span_s: float


def read_indexes(
    replicas: tuple[Replica, ...],
) -> tuple[tuple[Replica, ...], dict[str, Index], tuple[Unknown, ...]]:
    """The repository index by replica. A replica that should answer and does not comes back UNREACHABLE, as unknown.

    A starting server is not asked: it has loaded nothing yet. One that leaves may be gone already.

    Raises:
        FleetUnreadableError: none of several answers, or there is no secret to ask with. It is rather we who cannot
            read: to replace all of them would help nobody.
    """
    try:
        control_secret()
    except TritonError as error:
        raise FleetUnreadableError(str(error)) from error
    asked = [r for r in replicas if r.state in (ReplicaState.READY, ReplicaState.LEAVING)]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="index") as pool:
        answers = dict(zip((r.name for r in asked), pool.map(_index, asked), strict=True))
    indexes = {name: answer for name, answer in answers.items() if not isinstance(answer, TritonError)}
    after = tuple(
        replace(r, state=ReplicaState.UNREACHABLE, detail=str(answers[r.name]))
        if r.state is ReplicaState.READY and r.name not in indexes
        else r
        for r in replicas
    )
    silent = [r for r in after if r.state is ReplicaState.UNREACHABLE and r.name in answers]
    if len(silent) > 1 and not indexes:
        raise FleetUnreadableError(
            f"no replica can be read, of {len(silent)} that should answer: is the worker's control secret "
            f"({SECRET_FILE}) theirs, and does its network reach them? {silent[0].detail}"
        )
    unreachable = [r for r in after if r.state is ReplicaState.UNREACHABLE]
    return after, indexes, tuple(Unknown(f"replica:{r.name}", r.detail or "unreachable") for r in unreachable)


def copies(
    replicas: tuple[Replica, ...],
    indexes: Mapping[str, Index],
    routes: Mapping[str, frozenset[str]],
    weights: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> tuple[Copy, ...]:
    """Every copy that is loaded, comes, goes, or that requests are sent to, sorted by replica and model.

    ``weights``: by model and replica, where they are not 1.

    Routes to replicas that are gone give ABSENT copies too: requests still go there.
    """
    state_by_name = {replica.name: replica.state for replica in replicas}
    routed = {(replica, model) for model, targets in routes.items() for replica in targets}
    loaded = {
        (replica, model): status
        for replica, index in indexes.items()
        for model, status in index.items()
        if status.state in _STATE
    }
    found = []
    for replica, model in sorted(routed | set(loaded)):
        if (status := loaded.get((replica, model))) is not None:
            state, detail = _STATE[status.state], status.reason
        elif state_by_name.get(replica) is ReplicaState.UNREACHABLE:
            state, detail = CopyState.UNKNOWN, "its replica cannot be read"
        else:
            state, detail = CopyState.ABSENT, _absence(replica, model, state_by_name, indexes)
        weight = weights.get(model, {}).get(replica, 1.0)
        found.append(Copy(model, replica, state, (replica, model) in routed, weight=weight, detail=detail))
    return tuple(found)


def confirmed_failing(suspects: tuple[Suspect, ...], replicas: tuple[Replica, ...]) -> dict[tuple[str, str], str]:
    """The suspects whose failures are really theirs, by (model, replica), with what was seen.

    Triton's statistics start again with each load, its metrics need not, and Prometheus looks back over a window. So a
    copy that was repaired within the window still looks broken there; here it has counted no failure. A copy is failing
    when it has itself counted at least half of the window's failures (half: the window's count is extrapolated).
    """
    by_name = {replica.name: replica for replica in replicas if replica.state is ReplicaState.READY}
    counted = {name: _counters(by_name[name]) for name in {suspect.replica for suspect in suspects} & set(by_name)}
    return {
        (s.model, s.replica): f"{s.failed:.0f} of {s.failed:.0f} requests failed in {s.span_s:g} s"
        for s in suspects
        if counted.get(s.replica, {}).get(s.model, Statistics()).failure >= s.failed / 2
    }


def _index(replica: Replica) -> Index | TritonError:
    for left in reversed(range(TRIES)):
        try:
            with Triton(replica) as triton:
                return triton.index()
        except TritonError as error:
            if not left:
                return error
            time.sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _counters(replica: Replica) -> dict[str, Statistics]:
    try:
        with Triton(replica) as triton:
            return triton.statistics()
    except TritonError:
        return {}  # not confirmed: it is judged again in the next tick


def _absence(replica: str, model: str, state_by_name: Mapping[str, ReplicaState], indexes: Mapping[str, Index]) -> str:
    if replica not in state_by_name:
        return "its replica is gone"
    if replica not in indexes:
        return f"its replica is {state_by_name[replica]}"
    return indexes[replica].get(model, ModelStatus("")).reason or "not loaded"

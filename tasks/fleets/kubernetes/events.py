"""What a tick did and could not do, as Events on the pools' Deployments: `kubectl describe` tells the story."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.decision import Hold, Outcome, Result, StepKind, Tick
from tasks.fleets.kubernetes.api import MANAGER, Api, ApiError
from tasks.fleets.kubernetes.call import APPLY, Json
from tasks.fleets.kubernetes.pods import name_of
from tasks.world import Fleet

log = logging.getLogger(__name__)

TOLD = (StepKind.SCALE_UP, StepKind.LOAD, StepKind.UNLOAD, StepKind.SCALE_DOWN)
"""Steps whose success is news; of the others only a failure is."""
NO_NEWS = frozenset(("asleep", "busy", "not_scaled_by_us", "pool_min", "replica_starting", "stabilising", "kept"))
"""Holds by policy, or for a moment."""
MESSAGE_CHARS = 1000
"""An Event's message may have 1,024."""


@dataclass(frozen=True, slots=True)
class News:
    """One line on a pool. Two with the same ``subject`` and ``reason`` are the same Event, with the newer message."""

    pool: str
    subject: str
    reason: str
    message: str
    is_warning: bool


def news(tick: Tick) -> list[News]:
    """What a tick did and could not do, by pool."""
    fleet = tick.observation.fleet
    return [*_of_outcomes(tick.outcomes, fleet), *_of_holds(tick.plan.holds, fleet)]


def emit(found: list[News], deployments: dict[str, Json], api: Api) -> None:
    """Write the Events; one that cannot be written stops nothing, and is said in the log. What was told before is
    counted on from what one list has of it.

    Raises:
        ApiError: the Events that are there cannot be read.
    """
    before = {name_of(event): event for event in api.items(api.path("v1", "events"), fieldSelector=f"source={MANAGER}")}
    for line in found:
        if (deployment := deployments.get(line.pool)) is not None:
            body = _event(line, deployment, api.namespace)
            if (told := before.get(name_of(body))) is not None:
                body |= {"firstTimestamp": told["firstTimestamp"], "count": int(told.get("count", 1)) + 1}
            before[name_of(body)] = body
            try:
                api.patch(f"{api.path('v1', 'events')}/{name_of(body)}", body, APPLY, force=True)
            except ApiError as error:
                log.warning("Event %s: %s", line.reason, error)


def _of_outcomes(outcomes: tuple[Outcome, ...], fleet: Fleet) -> Iterator[News]:
    for outcome in outcomes:
        step, is_failed = outcome.step, outcome.result is Result.FAILED
        if outcome.result is Result.SKIPPED or not (is_failed or step.kind in TOLD):
            continue
        pool = step.pool or (fleet.replica_by_name[step.replica].pool if step.replica in fleet.replica_by_name else "")
        verb = "".join(part.capitalize() for part in step.kind.split("_"))
        detail = f" {outcome.detail}" if outcome.detail else ""
        message = f"{step}: {outcome.result} in {outcome.seconds:.1f} s.{detail} Why: {step.reason}"
        yield News(pool, str(step), f"{verb}Failed" if is_failed else verb, message, is_failed)


def _of_holds(holds: tuple[Hold, ...], fleet: Fleet) -> Iterator[News]:
    for hold in holds:
        if hold.reason.code in NO_NEWS:
            continue
        code = "".join(part.capitalize() for part in hold.reason.code.split("_"))
        for pool in _pools(hold.subject, fleet):
            yield News(pool, hold.subject, f"Held{code}", f"{hold.subject} is held. {hold.reason}", True)


def _pools(subject: str, fleet: Fleet) -> list[str]:
    """The pools that a hold is about."""
    kind, _, name = subject.partition(":")
    if kind == "pool":
        return [name]
    if kind == "replica":
        return [fleet.replica_by_name[name].pool] if name in fleet.replica_by_name else []
    model = fleet.model_by_name.get(name)
    return [pool.name for pool in fleet.pools if model is not None and model.may_live_in(pool)]


def _event(line: News, deployment: Json, namespace: str) -> Json:
    about = {key: deployment["metadata"][key] for key in ("name", "namespace", "uid")}
    digest = hashlib.sha256(f"{about['uid']} {line.subject} {line.reason}".encode()).hexdigest()[:16]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about['name']}.{digest}", "namespace": namespace},
        "involvedObject": {"apiVersion": "apps/v1", "kind": "Deployment", **about},
        "type": "Warning" if line.is_warning else "Normal",
        "reason": line.reason,
        "message": line.message[:MESSAGE_CHARS],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }

"""The count of a pool's replicas, and which pod leaves when it goes down."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

from tasks.fleets.kubernetes.api import Api, ApiError
from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.names import DELETION_COST, LEAVING_COST
from tasks.fleets.kubernetes.picture import Picture
from tasks.fleets.kubernetes.pods import (
    has_gate,
    is_emptied,
    is_leaving,
    is_rolled_out,
    is_terminating,
    is_true,
    labelled_models,
    name_of,
    pool_of,
    replica_set_of,
)
from tasks.fleets.kubernetes.routing import Routing

SETTLE_S = 30.0
"""The controllers create or delete a pod within a second or two of a new count."""
LOOK_S = 0.2
SEEN_S = 1.0
"""The controllers see pods and counts through two watches, milliseconds apart: this keeps their order."""
CONFLICTS = 8
"""Writes of the count that meet somebody else's; each time it is read and reckoned again."""


class Scaling:
    """Scaling of one fleet. May be used from several threads."""

    def __init__(self, api: Api, picture: Picture, routing: Routing) -> None:
        self._api, self._picture, self._routing = api, picture, routing
        self._lock_by_pool: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def up(self, pool: str, count: int) -> None:
        """Ask for so many replicas, never for fewer than now."""
        self._refuse_if_not_ours(pool)
        for _ in range(CONFLICTS):
            scale = self._scale(pool)
            if _count(scale) >= count or self._put(self._path(pool), scale, count):
                return
        raise ApiError(409, f"pool {pool}: its count is changed by somebody else all the time")

    def down(self, pod_name: str) -> None:
        """Mark an emptied pod as the one to go, lower the count while no other pod can be taken instead, and return
        once it is going. One that a rollout replaces goes without the count: another comes for it.

        Raises:
            ApiError: it is not empty, or another pod of the pool is not ready: that one would be taken first.
        """
        pod = self._picture.pods(max_age_s=0).get(pod_name)
        if pod is None or is_terminating(pod):
            return
        if models := labelled_models(pod):
            raise ApiError(409, f"pod {pod_name} is not empty: requests for {', '.join(sorted(models))} are sent to it")
        pool, deadline = pool_of(pod), time.monotonic() + SETTLE_S
        is_rolled = pod_name in self._picture.superseded()
        if not is_rolled:
            self._refuse_if_not_ours(pool)
            self._refuse_while_rolled_out(pool)
        self._routing.set_gate(pod_name, is_carrying=False)
        self._routing.mark(pod_name, {}, {DELETION_COST: str(LEAVING_COST)})
        self._wait_until_chosen(pod_name, deadline)
        with self._lock_by_pool[pool]:
            if is_rolled:
                self._hand_over(pod_name, pool, replica_set_of(pod))
                return
            # of several emptied pods another may be taken first: then the count goes down once more
            while pod_name in (before := self._alive(pool)):
                self._lower(pool, deadline)
                taken = before.keys() - self._alive(pool).keys()
                if lost := [name for name in taken if not is_emptied(before[name])]:
                    raise ApiError(409, f"pod {', '.join(lost)} was taken instead of {pod_name}, which was emptied")

    def _hand_over(self, pod_name: str, pool: str, replica_set: str) -> None:
        """Lower the count of the pod's ReplicaSet. The Deployment does not raise it again: it makes a pod of its newest
        revision instead."""
        path, deadline = self._api.path("apps/v1", "replicasets", replica_set, "scale"), time.monotonic() + SETTLE_S
        while pod_name in (alive := self._alive(pool)):
            peers = {name: pod for name, pod in alive.items() if replica_set_of(pod) == replica_set}
            scale = self._api.get(path)
            why_not = _why_not(peers, len(peers))
            if why_not is None and _count(scale) >= len(peers):  # else one is going already
                self._put(path, scale, len(peers) - 1)
            if time.monotonic() > deadline:
                raise ApiError(
                    409, f"ReplicaSet {replica_set} keeps {pod_name}: {why_not or 'do the controllers run?'}"
                )
            time.sleep(LOOK_S)

    def _wait_until_chosen(self, pod_name: str, deadline: float) -> None:
        """The closed gate makes the pod unready, and the controller must have seen that before it sees the count."""
        while (pod := self._picture.pods(max_age_s=0).get(pod_name)) and has_gate(pod) and is_true(pod, "Ready"):
            if time.monotonic() > deadline:
                raise ApiError(0, f"pod {pod_name} stays ready though its gate is closed: is its kubelet running?")
            time.sleep(LOOK_S)
        time.sleep(SEEN_S)

    def _lower(self, pool: str, deadline: float) -> None:
        """Lower the count by the marked pods that are there, and wait until as many are gone. Done again, it does
        nothing more."""
        while leaving := sum(map(is_leaving, (alive := self._alive(pool)).values())):
            scale = self._scale(pool)
            count = _count(scale)
            why_not = _why_not(alive, count)
            if why_not is None and self._put(self._path(pool), scale, count - leaving):
                self._wait_for(pool, count - leaving, deadline)
                return
            if time.monotonic() > deadline or (why_not and len(alive) == count):
                raise ApiError(409, f"pool {pool} keeps its {count} replicas: {why_not or 'others change the count'}")
            time.sleep(LOOK_S)

    def _wait_for(self, pool: str, count: int, deadline: float) -> None:
        while len(self._alive(pool)) > count:
            if time.monotonic() > deadline:
                raise ApiError(0, f"pool {pool} should have {count} replicas, yet none goes: do the controllers run?")
            time.sleep(LOOK_S)

    def _alive(self, pool: str) -> dict[str, Json]:
        pods = self._picture.pods(max_age_s=0).items()
        return {name: pod for name, pod in pods if pool_of(pod) == pool and not is_terminating(pod)}

    def _refuse_if_not_ours(self, pool: str) -> None:
        if not any(known.name == pool and known.is_scaled_by_us for known in self._picture.pools()):
            raise ApiError(409, f"pool {pool} is scaled by somebody else: its count is only published")

    def _refuse_while_rolled_out(self, pool: str) -> None:
        """A lower count is shared out among the revisions: of the one that has most a loaded pod would go."""
        if is_rolled_out(self._alive(pool).values()):
            raise ApiError(409, f"pool {pool} keeps its count while a rollout is under way")

    def _scale(self, pool: str) -> Json:
        return self._api.get(self._path(pool))

    def _put(self, path: str, scale: Json, count: int) -> bool:
        """Write the count unless somebody else changed it in the meantime."""
        version = scale["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": count}}
        try:
            self._api.patch(path, body)
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _path(self, pool: str) -> str:
        return self._api.path("apps/v1", "deployments", name_of(self._picture.deployments()[pool]), "scale")


def _count(scale: Json) -> int:
    return int(scale["spec"].get("replicas", 0))


def _why_not(alive: dict[str, Json], count: int) -> str | None:
    """Why the count must not go down now: a pod that is not ready is deleted before the one that was chosen."""
    if len(alive) != count:
        return f"{len(alive)} pods are there"
    unready = sorted(name for name, pod in alive.items() if not is_true(pod, "Ready") and not is_emptied(pod))
    return f"{', '.join(unready)} is not ready and would be taken first" if unready else None

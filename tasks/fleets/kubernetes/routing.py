"""Where requests go: a label for each ready model on the pod, and a Service and an HTTPRoute for each model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tasks.fleets.kubernetes.api import MANAGER, STRATEGIC, Api, ApiError
from tasks.fleets.kubernetes.call import APPLY, Call, Json
from tasks.fleets.kubernetes.names import (
    DELETION_COST,
    GATE,
    MANAGED_LABEL,
    MODEL_ANNOTATION,
    model_label,
    service_name,
)
from tasks.fleets.kubernetes.picture import Picture
from tasks.fleets.kubernetes.pods import (
    PORT_BY_NAME,
    deletion_cost,
    has_gate,
    is_on_its_way,
    is_terminating,
    is_true,
    labelled_models,
    name_of,
    routed_models,
)
from tasks.sections import GatewaySection, KubernetesSection

log = logging.getLogger(__name__)

MANAGED = f"{MANAGED_LABEL}={MANAGER}"
ROUTE_VERSIONS = ("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1")
SLICE_VERSIONS = ("discovery.k8s.io/v1", "discovery.k8s.io/v1beta1")
ENDPOINT_S = 30.0
"""The kubelet and the endpoint controller take a second or two, under load some more."""
LOOK_S = 0.1


class Routing:
    """Routes of one fleet. May be used from several threads, for one pod from one at a time."""

    def __init__(self, api: Api, picture: Picture, section: KubernetesSection) -> None:
        self._api, self._picture = api, picture
        self._gateway, self._propagation_s = section.gateway, section.propagation_s

    def declare(self, models: Iterable[str]) -> None:
        """A Service, and with a Gateway an HTTPRoute, for each model; those of other models that we once made go.

        Raises:
            ApiError: somebody else has one under such a name; all others are made.
        """
        wanted = sorted(models)
        elses = self._keep_only(self._api.path("v1", "services"), [_service(model) for model in wanted])
        version = self._api.served(*ROUTE_VERSIONS)
        if version is not None:
            wanted_routes = [_http_route(m, self._gateway, version) for m in wanted] if self._gateway else []
            elses += self._keep_only(self._api.path(version, "httproutes"), wanted_routes)
        elif self._gateway:
            log.warning("fleet.gateway is set, but the cluster has no Gateway API: the Services alone serve")
        if elses:
            remedy = f"rename it, or label it {MANAGED} to give it away"
            raise ApiError(409, f"{', '.join(elses)} is there and not ours, so it is left alone: {remedy}")

    def route(self, model: str, pod_name: str) -> None:
        """Label the pod, open its gate, and wait until its endpoint is in the model's EndpointSlices and known."""
        key, value = model_label(model)
        pod = self._picture.pod(pod_name)
        if pod is None:
            raise ApiError(404, f"pod {pod_name} is gone")
        cost = str(len(labelled_models(pod) | {model}))
        self.mark(pod_name, {key: value}, {DELETION_COST: cost})
        self.set_gate(pod_name, is_carrying=True)
        self._wait(model, pod_name, is_there=True)
        if (pod := self._picture.pod(pod_name)) is not None and is_on_its_way(pod):  # seen so before it was an endpoint
            self._picture.pods(max_age_s=0)

    def unroute(self, model: str, pod_name: str) -> None:
        """Take the label off, wait until the endpoint is gone and that is known. The gate stays open: the copy is still
        to be drained, and a pod that is not ready would be the first to go when the count goes down.

        Raises:
            ApiError: others are to serve the model, and none of them is an endpoint yet.
        """
        key, _ = model_label(model)
        pod = self._picture.pod(pod_name)
        if pod is None:
            return
        left = labelled_models(pod) - {model}
        with _unless_gone():
            self._refuse_if_only(model, pod_name)
            self.mark(pod_name, {key: None}, {DELETION_COST: str(len(left))})
            self._wait(model, pod_name, is_there=False)

    def _refuse_if_only(self, model: str, pod_name: str) -> None:
        if self._endpoints(model) != {pod_name}:
            return
        ready = {name: pod for name, pod in self._picture.pods().items() if is_true(pod, "Ready") and name != pod_name}
        if others := sorted(name for name, pod in ready.items() if model in routed_models(pod)):
            what = f"pod {pod_name} is the only endpoint of Service {service_name(model)}"
            raise ApiError(409, f"{what}, {', '.join(others)} is yet to be one: do the controllers run?")

    def set_gate(self, pod_name: str, is_carrying: bool) -> None:
        """Set the readiness gate, where the pod has one and it is not so already."""
        pod = self._picture.pod(pod_name)
        if pod is None or not has_gate(pod) or is_true(pod, GATE) == is_carrying:
            return
        condition = {"type": GATE, "status": str(is_carrying), "lastTransitionTime": _now()}
        path = self._api.path("v1", "pods", pod_name, "status")
        self._picture.keep(self._api.patch(path, {"status": {"conditions": [condition]}}, STRATEGIC))

    def keep_costs(self) -> None:
        """Deletion costs and gates as the labels have them: what somebody else changed is put right, and a pod that an
        earlier tick marked as the one to go is so no more, until this one marks it."""
        for name, pod in self._picture.pods().items():
            carried = len(labelled_models(pod))
            if is_terminating(pod):
                continue
            with _unless_gone():
                if deletion_cost(pod) != carried:
                    self.mark(name, {}, {DELETION_COST: str(carried)})
                self.set_gate(name, is_carrying=carried > 0)

    def mark(self, pod_name: str, labels: dict[str, str | None], annotations: dict[str, str]) -> None:
        """Set labels and annotations; a label of None goes."""
        body = {"metadata": {"labels": labels, "annotations": annotations}}
        self._picture.keep(self._api.patch(self._api.path("v1", "pods", pod_name), body))

    def _wait(self, model: str, pod_name: str, is_there: bool) -> None:
        """Until the model's EndpointSlices have the pod as ready, or have it no more, and everybody knows."""
        deadline = time.monotonic() + ENDPOINT_S
        while (pod_name in self._endpoints(model)) != is_there:
            if time.monotonic() > deadline:
                what = "not among" if is_there else "still among"
                raise ApiError(
                    0, f"pod {pod_name} is {what} the endpoints of Service {service_name(model)} after {ENDPOINT_S:g} s"
                )
            time.sleep(LOOK_S)
        time.sleep(self._propagation_s)

    def _endpoints(self, model: str) -> set[str]:
        """Pods that the model's requests are sent to."""
        version = self._api.served(*SLICE_VERSIONS)
        if version is None:
            raise ApiError(404, f"the cluster serves none of {', '.join(SLICE_VERSIONS)}")
        selector = f"kubernetes.io/service-name={service_name(model)}"
        return {
            endpoint["targetRef"]["name"]
            for piece in self._api.items(self._api.path(version, "endpointslices"), labelSelector=selector)
            for endpoint in piece.get("endpoints") or []
            if endpoint.get("conditions", {}).get("ready", True) and "targetRef" in endpoint
        }

    def _keep_only(self, path: str, wanted: list[Json]) -> list[str]:
        """Apply what is missing or differs, remove what is ours and not wanted; what is wanted and somebody else's."""
        found = {name_of(thing): thing for thing in self._api.items(path, labelSelector=MANAGED)}
        missing = {name_of(thing) for thing in wanted} - found.keys()
        elses = missing & self._names(path) if missing else set()
        for thing in wanted:
            there = found.pop(name_of(thing), None)
            if there is not None:
                # a list leaves kinds out
                if not _covers(there, {"metadata": thing["metadata"], "spec": thing["spec"]}):
                    self._put_right(f"{path}/{name_of(thing)}", there, thing)
            elif name_of(thing) not in elses:
                self._api.patch(f"{path}/{name_of(thing)}", thing, APPLY)
        for name in found:
            with _unless_gone():
                self._api.call(Call("DELETE", f"{path}/{name}"))
        return [f"{wanted[0]['kind']} {self._api.namespace}/{name}" for name in sorted(elses)]

    def _names(self, path: str) -> set[str]:
        """Of all that are there, ours or not. Apply would take part in what somebody else has under the name; whoever
        comes in between is met as a conflict."""
        return {name_of(thing) for thing in self._api.items(path)}

    def _put_right(self, path: str, there: Json, thing: Json) -> None:
        """By server-side apply: fields that we do not name stay as they are. In a selector what we do not name goes:
        old API servers would merge it."""
        surplus = there["spec"].get("selector", {}).keys() - thing["spec"].get("selector", {}).keys()
        if surplus:
            self._api.patch(path, {"spec": {"selector": dict.fromkeys(surplus)}})
        self._api.patch(path, thing, APPLY, force=True)


@contextmanager
def _unless_gone() -> Iterator[None]:
    """What is done to a thing that has just gone need not be done."""
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise


def _service(model: str) -> Json:
    key, value = model_label(model)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(model),
        "spec": {
            "selector": {key: value},
            "ports": [
                {"name": name, "port": PORT_BY_NAME[name], "targetPort": name, "protocol": "TCP"}
                for name in ("http", "grpc")
            ],
        },
    }


def _http_route(model: str, gateway: GatewaySection, version: str) -> Json:
    parent = {"name": gateway.name, "namespace": gateway.namespace, "sectionName": gateway.listener}
    return {
        "apiVersion": version,
        "kind": "HTTPRoute",
        "metadata": _metadata(model),
        "spec": {
            "parentRefs": [{key: value for key, value in parent.items() if value is not None}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": f"/v2/models/{model}"}}],
                    "backendRefs": [{"name": service_name(model), "port": PORT_BY_NAME["http"]}],
                }
            ],
        },
    }


def _metadata(model: str) -> Json:
    """Without owners: a model's Service belongs to every pool that may carry it, a pool's Deployment may be made anew
    under its routes, and what is owned would go with it. What is not wanted any more the next tick removes by its
    label."""
    return {"name": service_name(model), "labels": {MANAGED_LABEL: MANAGER}, "annotations": {MODEL_ANNOTATION: model}}


def _covers(there: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there; what others, or defaults, added does not matter. A selector is
    compared as a whole: one label more in it would select fewer pods."""
    if isinstance(wanted, dict):
        if not isinstance(there, dict):
            return False
        exact = wanted.get("selector", {}).keys() == there.get("selector", {}).keys()
        return exact and all(key in there and _has(key, there[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(there, list) and len(there) == len(wanted) and all(map(_covers, there, wanted))
    return bool(there == wanted)


def _has(key: str, there: Any, wanted: Any) -> bool:
    """Ports are told apart by their number, so others may add theirs; every other list is compared as a whole."""
    if key == "ports":
        return isinstance(there, list) and all(any(_covers(one, port) for one in there) for port in wanted)
    return _covers(there, wanted)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

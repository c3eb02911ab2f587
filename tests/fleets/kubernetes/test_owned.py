"""Services and HTTPRoutes: what is in them, whose fields they are, and what is left alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tasks.config import Config
from tasks.fleets.kubernetes import KubernetesFleet
from tasks.fleets.kubernetes.api import ApiError
from tasks.fleets.kubernetes.call import APPLY, Call, Json
from tests.fleets.kubernetes.cluster import Cluster
from tests.fleets.kubernetes.faults import Faulty

pytestmark = pytest.mark.kubernetes

ROUTES = ("gateway.networking.k8s.io/v1", "httproutes")
SERVICES = ("v1", "services")
ODD = "Some_Model.v2-" + "x" * 80
"""Neither a label nor a Service can have this name."""


def with_models(cluster: Cluster, *models: str, gateway: dict[str, str] | None = None) -> Config:
    fleet: dict[str, Any] = {
        "kind": "kubernetes",
        "namespace": cluster.namespace,
        "propagation_s": 0.0,
        "linger_s": 0.0,
    }
    return cluster.config(
        "small",
        models={model: {"footprint": "1MB", "service_ms": 1} for model in models},
        fleet=fleet | ({"gateway": gateway} if gateway else {}),
    )


def declare(cluster: Cluster, *models: str, gateway: dict[str, str] | None = None) -> None:
    config = with_models(cluster, *models, gateway=gateway)
    cluster.fleet(config=config).declare(config.domain_models())


def declare_through(fleet: KubernetesFleet, config: Config, fault: Any = lambda *_: None) -> Faulty:
    faulty = Faulty(fleet, fault)
    fleet.declare(config.domain_models())
    return faulty


def by_model(cluster: Cluster, kind: tuple[str, str]) -> dict[str, Json]:
    """Ours, by the model that their annotation names."""
    found = cluster.api.items(cluster.api.path(*kind), labelSelector="app.kubernetes.io/managed-by=triton-placement")
    return {thing["metadata"]["annotations"]["triton-placement/model"]: thing for thing in found}


def managers(things: Iterable[Json]) -> set[tuple[str, str]]:
    return {(field["manager"], field["operation"]) for thing in things for field in thing["metadata"]["managedFields"]}


# --- what is in them


def test_a_service_selects_the_models_pods_and_has_both_of_tritons_ports(cluster: Cluster) -> None:
    declare(cluster, "echo")
    spec = by_model(cluster, SERVICES)["echo"]["spec"]
    assert spec["selector"] == {"model.triton-placement/echo": "ready"}
    ports = [(port["name"], port["port"], port["targetPort"]) for port in spec["ports"]]
    assert ports == [("http", 8000, "http"), ("grpc", 8001, "grpc")]


@pytest.mark.parametrize(
    ("gateway", "parent"),
    [
        pytest.param({"name": "models"}, {"name": "models"}, id="beside the pools"),
        pytest.param(
            {"name": "models", "namespace": "gateway", "listener": "http"},
            {"name": "models", "namespace": "gateway", "sectionName": "http"},
            id="elsewhere, one listener",
        ),
    ],
)
def test_an_http_route_sends_the_models_path_to_its_service(
    cluster: Cluster, gateway: dict[str, str], parent: dict[str, str]
) -> None:
    declare(cluster, "echo", ODD, gateway=gateway)
    routes, services = by_model(cluster, ROUTES), by_model(cluster, SERVICES)
    assert set(routes) == {"echo", ODD}
    assert routes["echo"]["spec"] == {
        "parentRefs": [parent],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/v2/models/echo"}}],
                "backendRefs": [{"name": "model-echo", "port": 8000}],
            }
        ],
    }
    (rule,) = routes[ODD]["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": f"/v2/models/{ODD}"}}]
    assert rule["backendRefs"] == [{"name": services[ODD]["metadata"]["name"], "port": 8000}]


def test_without_a_gateway_api_no_route_is_asked_for_and_the_services_serve(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_models(cluster, "echo", gateway={"name": "models"})

    def has_no_such_api(method: str, path: str, before: int) -> tuple[int, dict[str, str]] | None:
        return (404, {}) if path == "/apis/gateway.networking.k8s.io" else None

    faulty = declare_through(cluster.fleet(config=config), config, has_no_such_api)
    assert [path for _, path in faulty.calls if "httproutes" in path] == []
    assert set(by_model(cluster, SERVICES)) == {"echo"}
    assert "the cluster has no Gateway API: the Services alone serve" in caplog.text


def test_without_a_configured_gateway_routes_are_only_looked_for(cluster: Cluster) -> None:
    """One list: those that were made while a gateway was configured go."""
    declare(cluster, "echo", gateway={"name": "models"})
    config = with_models(cluster, "echo")
    faulty = declare_through(cluster.fleet(config=config), config)
    asked = [(method, path.rpartition("/")[2]) for method, path in faulty.calls if "httproutes" in path]
    assert asked == [("GET", "httproutes"), ("DELETE", "model-echo")]
    assert by_model(cluster, ROUTES) == {}
    faulty = declare_through(cluster.fleet(config=config), config)
    assert [method for method, path in faulty.calls if "httproutes" in path] == ["GET"]


# --- whose fields they are


def test_all_fields_are_applied_by_our_manager_alone(cluster: Cluster) -> None:
    declare(cluster, "echo", "other", gateway={"name": "models"})
    made = [*by_model(cluster, SERVICES).values(), *by_model(cluster, ROUTES).values()]
    assert len(made) == 4
    assert managers(made) == {("triton-placement", "Apply")}


def test_fields_of_others_survive_our_write(cluster: Cluster) -> None:
    declare(cluster, "echo", gateway={"name": "models"})
    path = cluster.api.path(*SERVICES, "model-echo")
    theirs = {
        "metadata": {"labels": {"team": "ml"}, "annotations": {"cost": "low"}},
        "spec": {
            "sessionAffinity": "ClientIP",
            "ports": [{"name": "metrics", "port": 8002, "targetPort": "metrics", "protocol": "TCP"}],
        },
    }
    as_another(cluster, path, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "model-echo"}} | theirs)
    cluster.api.patch(path, {"metadata": {"annotations": {"triton-placement/model": "edited"}}})  # ours, edited
    declare(cluster, "echo", gateway={"name": "models"})
    service = by_model(cluster, SERVICES)["echo"]
    assert service["metadata"]["labels"]["team"] == "ml"
    assert service["metadata"]["annotations"] == {"cost": "low", "triton-placement/model": "echo"}
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    assert [port["name"] for port in service["spec"]["ports"]] == ["http", "grpc", "metrics"]
    declare(cluster, "echo", gateway={"name": "models"})
    assert by_model(cluster, SERVICES)["echo"]["metadata"]["resourceVersion"] == service["metadata"]["resourceVersion"]


def as_another(cluster: Cluster, path: str, body: Json) -> None:
    """Server-side apply by another manager."""
    body["metadata"] = {"name": "model-echo"} | body["metadata"]
    cluster.api.call(Call("PATCH", path, {"fieldManager": "somebody"}, body, APPLY))


def test_a_selector_that_was_edited_is_put_right_as_a_whole(cluster: Cluster) -> None:
    declare(cluster, "echo")
    path = cluster.api.path(*SERVICES, "model-echo")
    cluster.api.patch(path, {"spec": {"selector": {"app": "elsewhere"}}})
    declare(cluster, "echo")
    assert cluster.api.get(path)["spec"]["selector"] == {"model.triton-placement/echo": "ready"}


# --- making and removing them


def test_an_answer_that_is_lost_is_no_conflict(cluster: Cluster) -> None:
    """The API server made it, the connection broke before it said so, the call is made again."""
    config = with_models(cluster, "echo", gateway={"name": "models"})
    fleet = cluster.fleet(config=config)
    plain = cluster.fleet(config=config)

    def lose(method: str, path: str, before: int) -> tuple[int, dict[str, str]] | None:
        if method != "PATCH" or before:
            return None
        plain.declare(config.domain_models())  # what the lost call did
        return 0, {}

    faulty = declare_through(fleet, config, lose)
    assert faulty.calls["PATCH", cluster.api.path(*SERVICES, "model-echo")] == 2
    made = [*by_model(cluster, SERVICES).values(), *by_model(cluster, ROUTES).values()]
    assert len(made) == 2
    assert managers(made) == {("triton-placement", "Apply")}


def test_a_model_that_leaves_the_configuration_loses_its_service_and_route(cluster: Cluster) -> None:
    cluster.create("v1", "services", {"metadata": {"name": "elses"}, "spec": {"ports": [{"port": 80}]}})
    declare(cluster, "echo", "other", gateway={"name": "models"})
    declare(cluster, "echo", gateway={"name": "models"})
    assert set(by_model(cluster, SERVICES)) == set(by_model(cluster, ROUTES)) == {"echo"}
    assert "elses" in {thing["metadata"]["name"] for thing in cluster.api.items(cluster.api.path(*SERVICES))}


@pytest.mark.parametrize("selector", [{"app": "elses"}, None], ids=["that selects", "without a selector"])
def test_a_service_of_somebody_else_is_not_taken_over(cluster: Cluster, selector: dict[str, str] | None) -> None:
    elses = {"metadata": {"name": "model-echo"}, "spec": {"selector": selector, "ports": [{"port": 80}]}}
    cluster.create("v1", "services", elses)
    before = cluster.versions()
    with pytest.raises(ApiError, match=r"Service test-\d+/model-echo is there and not ours, so it is left alone"):
        declare(cluster, "echo")
    assert cluster.versions() == before


def test_a_service_of_somebody_else_keeps_no_other_model_from_its_own(cluster: Cluster) -> None:
    cluster.create("v1", "services", {"metadata": {"name": "model-echo"}, "spec": {"ports": [{"port": 80}]}})
    with pytest.raises(ApiError, match="model-echo is there and not ours"):
        declare(cluster, "echo", "other", gateway={"name": "models"})
    assert set(by_model(cluster, SERVICES)) == {"other"}
    assert set(by_model(cluster, ROUTES)) == {"echo", "other"}


def test_many_new_models_take_one_look_more(cluster: Cluster) -> None:
    """Whether a name is somebody else's is asked for all of them at once, and only when there is a new one."""
    config = with_models(cluster, *(f"model{n}" for n in range(20)))
    gets = [
        sum(
            count
            for (method, path), count in declare_through(fleet, config).calls.items()
            if path.endswith("/services")
        )
        for fleet in (cluster.fleet(config=config), cluster.fleet(config=config))
    ]
    assert gets == [2, 1]

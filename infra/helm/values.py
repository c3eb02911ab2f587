"""What may be written in the chart's values; ``python -m infra.helm.values`` prints ``values.schema.json``.

The chart's own keys are camelCase, as charts' keys are. ``placement`` is the configuration file as it is
(tasks/config.py), so one schema holds for both.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tasks.config import Config

POOL_NAME = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
"""A pool's name becomes part of a Deployment's name and so of its pods' names: 63 characters for all of it."""


class Values(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, alias_generator=to_camel)


class Image(Values):
    """A container image."""

    repository: Annotated[str, Field(min_length=1)]
    tag: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class Claim(Values):
    """A model repository on a volume, mounted read-only."""

    claim_name: str
    sub_path: str = ""


class ObjectStore(Values):
    """A model repository in an object store that Triton reads itself, into each replica's /tmp: the pool's ``tmp`` must
    hold the files of all models of a replica, and of one that is being loaded."""

    url: Annotated[str, Field(pattern=r"^(s3|gs|as)://")]
    secret_name: str = ""
    """Secret whose keys become Triton's environment: AWS_ACCESS_KEY_ID and so on. Empty: the pod's own identity."""


class RepositoryImage(Values):
    """A model repository that is a folder of an image; the image must have cp."""

    reference: str
    path: str = "/models"
    size_limit: str = "20Gi"
    """The copy in each pod takes this much of the node's disk at most."""


class Repository(Values):
    """Triton's model repository: exactly one of the three."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    claim: Claim | None = None
    object_store: ObjectStore | None = None
    image: RepositoryImage | None = None


class Hpa(Values):
    """A HorizontalPodAutoscaler for a pool whose owner is hpa."""

    create: bool = True
    """False: it is made elsewhere; the pool's owner stays hpa."""
    metric: str = "triton_placement_replicas_wanted"
    """External metric with a label ``pool``."""


class Pool(Values):
    """How the replicas of a pool run; how many and which models is said in placement.pools."""

    image: Image | None = None
    gpus: int = Field(1, ge=0)
    """GPUs of one replica. 0: it runs on CPU."""
    gpu_resource: str = "nvidia.com/gpu"
    resources: dict[str, Any] = Field(default_factory=dict)
    """Requests and limits besides the GPUs."""
    shm: str = "1Gi"
    """Shared memory: of the Python backend's processes, and of clients that use it."""
    tmp: str = ""
    """/tmp, the only place on disk that can be written. Empty: 2Gi; with an object store it must be given, since Triton
    keeps there the files of every model that is loaded, and a pod that needs more is evicted with all its copies. It is
    the node's disk: what is requested as ephemeral-storage is kept free there."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    affinity: dict[str, Any] = Field(default_factory=dict)
    runtime_class_name: str = ""
    priority_class_name: str = ""
    service_account_name: str = ""
    """For workload identity at an object store; its token is mounted only if this is set."""
    pod_annotations: dict[str, str] = Field(default_factory=dict)
    args: list[str] = Field(default_factory=list)
    """More arguments of tritonserver."""
    env: list[dict[str, Any]] = Field(default_factory=list)
    start_seconds: int = Field(300, ge=1)
    """A server that is not live after this long is restarted."""
    max_surge: int | str = 1
    max_unavailable: int | str = 0
    """Of a rollout. With no GPU to spare: maxSurge 0 and maxUnavailable 1."""
    min_ready_seconds: int = Field(300, ge=0)
    """Of a rollout: for so long an older replica keeps its place beside a newer one that carries models. Ticks empty it
    meanwhile, and let it go as soon as it is empty; what it still carries then goes with it."""
    hpa: Hpa = Hpa()


class Triton(Values):
    """What all replicas have in common."""

    image: Image
    exit_timeout_seconds: int = Field(30, ge=1)
    """Requests in flight get this long once the server was told to stop."""
    pre_stop_seconds: int = Field(10, ge=0)
    """A pod that goes serves on this long, until every gateway has noticed."""
    run_as_user: int = Field(1000, ge=1)
    repository: Repository


class Control(Values):
    """The secret that model control asks for, over HTTP and gRPC."""

    existing_secret: str = ""
    """Its key is ``control`` and its value HEADER=SECRET. Empty: made at the first install and kept at upgrades."""


class Catalogue(Values):
    """Where the flow ``profile`` keeps what it measured, and every tick reads it: a volume of the worker."""

    enabled: bool = True
    """False: each model's footprint and service time must be declared in placement.models."""
    existing_claim: str = ""
    """A PersistentVolumeClaim. Empty: one is made, and left at an uninstall."""
    storage_class_name: str = ""
    """Of the claim that is made. Empty: the cluster's default."""
    size: str = "1Gi"
    """Of the claim that is made. The file has about 500 bytes for each model and GPU type."""


class Prefect(Values):
    """The Prefect server, which comes from its own chart."""

    api_url: Annotated[str, Field(pattern=r"^https?://")]
    existing_secret: str = ""
    """Its keys become the environment of the flows: PREFECT_API_KEY or PREFECT_API_AUTH_STRING."""
    work_pool: str = "triton-placement"


class Process(Values):
    """A pod of ours."""

    resources: dict[str, Any] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    env: list[dict[str, Any]] = Field(default_factory=list)


class OptionalProcess(Process):
    """A pod of ours that can be left out."""

    enabled: bool = True


class Pushgateway(OptionalProcess):
    """Where a tick leaves its metrics. Disabled: placement.metrics.pushgateway_url must be set."""

    image: Image


class NetworkPolicy(Values):
    """Who may reach what; each list is NetworkPolicy peers."""

    enabled: bool = True
    http_from: list[dict[str, Any]] = Field(default_factory=list)
    """To the inference port: the gateway. Empty: everybody; its control endpoints ask for the key."""
    grpc_from: list[dict[str, Any]] = Field(default_factory=list)
    """To the gRPC port, besides us: gRPC inference clients. Empty: nobody."""
    metrics_from: list[dict[str, Any]] = Field(default_factory=list)
    """To the metrics port: Prometheus. Empty: everybody."""
    triton_egress: list[dict[str, Any]] = Field(default_factory=list)
    """Egress rules of the replicas, besides DNS and, with an object store, port 443. Workload identity needs
    the metadata server (on GKE as in ci/workload-identity-values.yaml), an object store of your own its port."""


class GatewayProxies(Values):
    """The proxies of the Gateway that placement.fleet.gateway names, if they are Envoys: demand is read from them."""

    namespace: str = ""
    """Where their pods are. Empty: they are scraped by somebody else, or demand is read elsewhere."""
    labels: dict[str, str] = Field(
        default_factory=lambda: {"app.kubernetes.io/name": "envoy", "app.kubernetes.io/component": "proxy"}
    )
    """Of their pods."""
    port: str = "metrics"
    """Name of the container's port."""
    path: str = "/stats/prometheus"
    cluster: Annotated[str, Field(pattern=r"\{service\}")] = "httproute/{namespace}/{service}/rule/.*"
    """Their name (a regular expression) of the cluster that serves a model, with the models' namespace and the model's
    Service filled in."""


class Monitoring(Values):
    """How Prometheus and Grafana find what there is to see."""

    scrape: Literal["podMonitor", "annotations", "none"] = "podMonitor"
    """podMonitor needs the Prometheus Operator. annotations only marks the pods, none does not even that: the labels
    ``replica`` and ``pool``, and the models' names at the gateway, are then for the scrape config to give, as
    examples/scrape-config.yaml does."""
    interval: str = "5s"
    rules: bool = True
    """A PrometheusRule with the alerts; needs the Prometheus Operator."""
    dashboards: bool = True
    """A ConfigMap that Grafana's sidecar picks up."""
    labels: dict[str, str] = Field(default_factory=dict)
    """On the PodMonitors and the PrometheusRule, for a Prometheus that selects by label."""
    dashboard_labels: dict[str, str] = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    gateway: GatewayProxies = GatewayProxies()


class Chart(Values):
    """Values of the chart triton-placement."""

    image: Image
    """Of the flows: built from infra/images/flows.Dockerfile, it is in no public registry."""
    image_pull_secrets: list[dict[str, str]] = Field(default_factory=list)
    prefect: Prefect
    placement: Config
    """The configuration file as it is. fleet.kind, fleet.namespace, the Pushgateway and the catalogue are filled in."""
    triton: Triton
    pool_defaults: Pool = Pool()
    pools: dict[Annotated[str, Field(pattern=POOL_NAME)], Pool] = Field(default_factory=dict)
    """By pool name: what differs from poolDefaults."""
    control: Control = Control()
    catalogue: Catalogue = Catalogue()
    worker: Process = Process()
    """The long-lived Prefect worker; its runs are processes beside it."""
    listener: OptionalProcess = OptionalProcess()
    """Watches pods and scaling, and starts a tick at once."""
    register_job: OptionalProcess = Field(OptionalProcess(), alias="register")
    """The Job that makes the work pool, deployments and triggers."""
    pushgateway: Pushgateway
    network_policy: NetworkPolicy = NetworkPolicy()
    disruption_budget: bool = True
    """A PodDisruptionBudget for each pool: one replica at a time."""
    rbac: bool = True
    """False: roles and service accounts of the same names are made elsewhere."""
    monitoring: Monitoring = Monitoring()
    global_values: dict[str, Any] = Field(default_factory=dict, alias="global")
    """Helm's own, when the chart is a subchart."""


def schema() -> str:
    """The chart's ``values.schema.json``."""
    found = Chart.model_json_schema()
    found["$schema"] = "http://json-schema.org/draft-07/schema#"
    return json.dumps(found, indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")

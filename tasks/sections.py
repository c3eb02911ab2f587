"""The sections of the configuration: what a person may write, with what each key means and allows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from tasks.catalogue import Catalogue, Entry, Number
from tasks.size.learn import kept_bytes
from tasks.world import Limits, Model, Need, Objective, Pool


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class NeedSection(Section):
    """What one copy takes, and gives."""

    footprint: ByteSize | None = None
    """Memory of one copy after warm-up, for example 290MB or 2GiB. Left out: the catalogue's."""
    service_ms: float | None = Field(None, gt=0)
    """Mean milliseconds one request is executed, without its queue time. Left out: the catalogue's."""
    service_cv2: float = Field(0.0, ge=0)
    """Squared coefficient of variation of the service time: 0 constant, 1 exponential. Left out: the catalogue's."""
    instances: int = Field(1, ge=1)
    """Requests that one copy executes at the same time (instance_group count)."""
    load_s: float = Field(5.0, gt=0)
    """Seconds from the load call to the first request served. Left out: the catalogue's."""
    compute_ms: float | None = Field(None, gt=0)
    """Device milliseconds one request takes. Left out: as long as the service takes."""

    def need(self, entry: Entry) -> Need | None:
        """What is declared, else what the catalogue has; None: neither has the footprint or the service time."""
        measured = entry.footprint_bytes if self.footprint is None else None
        seen = None if measured is None else (measured.value, measured.spread)
        footprint = self.footprint if seen is None else kept_bytes(*seen)
        service_ms = _declared(self.service_ms, entry.service_ms)
        if footprint is None or service_ms is None:
            return None
        cv2, load_s = (
            _declared(getattr(self, field) if field in self.model_fields_set else None, number)
            for field, number in (("service_cv2", entry.service_cv2), ("load_s", entry.load_s))
        )
        return Need(
            footprint_bytes=int(footprint),
            service_ms=service_ms,
            service_cv2=self.service_cv2 if cv2 is None else cv2,
            instances=self.instances,
            load_s=self.load_s if load_s is None else load_s,
            compute_ms=self.compute_ms,
            source=_source(self.service_ms, entry.service_ms),
            footprint_source=_source(self.footprint, entry.footprint_bytes),
            footprint_seen=seen,
        )


def _declared(declared: float | None, number: Number | None) -> float | None:
    return declared if declared is not None or number is None else number.value


def _source(declared: float | None, number: Number | None) -> str:
    return "declared" if declared is not None or number is None else number.source


class ModelSection(NeedSection):
    """A model's needs and policy."""

    on: dict[str, NeedSection] = Field(default_factory=dict)
    """Needs that differ on a GPU type, by its name."""
    queue_ms: float = Field(50.0, gt=0)
    """Objective: the queue time under which the percentile of its requests should stay."""
    percentile: float = Field(95.0, gt=0, lt=100)
    """Objective: the percentile."""
    min_copies: int = Field(1, ge=0)
    """Never fewer copies. 0: unloaded after idle_s without a request, loaded again on the tick after one."""
    max_copies: int = Field(8, ge=1)
    """Never more copies."""
    priority: int = 0
    """Higher goes first when there is not room for all."""
    pools: frozenset[str] | None = None
    """Pools it may live in. Left out: all."""
    pinned: bool = False
    """Its copies are never moved to make room or to save a replica."""
    idle_s: float = Field(900.0, gt=0)
    """With min_copies 0: seconds without a request before its copies go."""
    largest: dict[str, list[int]] = Field(default_factory=dict)
    """The largest shape of each input whose dimensions are free, without the batch: profiling warms up with it."""

    @model_validator(mode="after")
    def _ordered(self) -> ModelSection:
        if self.max_copies < self.min_copies:
            raise ValueError(f"max_copies {self.max_copies} is below min_copies {self.min_copies}")
        return self

    def model(self, name: str, gpu_types: set[str], catalogue: Catalogue) -> Model:
        """With a need for each GPU type on which it is known."""
        needs = {gpu: self.on.get(gpu, self).need(catalogue.entry(name, gpu)) for gpu in sorted(gpu_types)}
        return Model(
            name=name,
            need_by_gpu_type={gpu: need for gpu, need in needs.items() if need is not None},
            objective=Objective(self.queue_ms, self.percentile),
            min_copies=self.min_copies,
            max_copies=self.max_copies,
            priority=self.priority,
            pools=self.pools,
            is_pinned=self.pinned,
            idle_s=self.idle_s,
        )


class PoolSection(Section):
    """A pool of interchangeable replicas."""

    memory: ByteSize
    """Memory of one replica, for example 700MB or 24GiB. Less counts where its node's label nvidia.com/gpu.memory or
    Triton's nv_gpu_memory_total_bytes has less, and the tick says so."""
    gpu_type: str = ""
    """Left out: the pool's name."""
    compute: float = Field(1.0, gt=0)
    """Device-seconds a second that the copies of one replica may take together."""
    min_replicas: int = Field(1, ge=0)
    """Never fewer replicas."""
    max_replicas: int = Field(1, ge=0)
    """Never more replicas."""
    cost_per_hour: float = Field(1.0, ge=0)
    """What one replica costs; only the ratio between pools matters."""
    start_s: float = Field(60.0, ge=0)
    """Seconds from asking for a replica to its being ready for a load."""
    headroom: float = Field(0.1, ge=0, lt=1)
    """Share of a replica's memory and compute kept free on purpose."""
    owner: Literal["us", "hpa"] = "us"
    """Who writes the replica count. hpa: it is only published."""

    @model_validator(mode="after")
    def _ordered(self) -> PoolSection:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        return self

    def pool(self, name: str) -> Pool:
        return Pool(
            name=name,
            gpu_type=self.gpu_type or name,
            memory_bytes=int(self.memory),
            compute=self.compute,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            is_scaled_by_us=self.owner == "us",
            cost_per_hour=self.cost_per_hour,
            start_s=self.start_s,
            headroom=self.headroom,
        )


class LimitsSection(Section):
    """Thresholds for the whole fleet."""

    interval_s: float = Field(30.0, gt=0)
    """Seconds between ticks: `make up` and the chart give it to the deployment's schedule."""
    budget: int = Field(4, ge=1)
    """Loads and unloads in a tick, at most."""
    stale_s: float = Field(60.0, gt=0)
    """A newest sample older than this is unknown."""
    stabilisation_s: float = Field(300.0, ge=0)
    """Copies go down to the most that was wanted in this long, not further."""
    margin: float = Field(0.15, ge=0)
    """What remains after a scale-down must serve this share more than the forecast."""
    quantile: float = Field(0.9, gt=0.5, lt=1)
    """Quantile of the forecast that is sized for."""
    saving_factor: float = Field(0.5, ge=0)
    """A replica is given up only when cost saved / fleet's cost >= this many times copies moved / copies."""
    act_s: float = Field(120.0, gt=0)
    """No step starts later than this after the tick began to act."""

    def limits(self) -> Limits:
        return Limits(**self.model_dump())


class MetricsSection(Section):
    """Where demand is read and where the tick's metrics go."""

    prometheus_url: str | None = None
    """Left out: the local fleet's own."""
    pushgateway_url: str | None = None
    """Left out: the local fleet's own."""
    demand_query: str = (
        "sum by (model) (label_replace(rate(envoy_cluster_upstream_rq_completed[{window}]) + "
        'rate(envoy_cluster_upstream_rq_cancelled[{window}]), "model", "$1", "envoy_cluster_name", "(.+)"))'
    )
    """PromQL: demand in requests a second with a label ``model``; {window} is filled in."""
    unserved_query: str = (
        "sum by (model) (label_replace("
        'envoy_cluster_upstream_cx_none_healthy, "model", "$1", "envoy_cluster_name", "(.+)"))'
    )
    """PromQL: counters of requests that found no copy, with a label ``model``; asked by the listener on Kubernetes."""
    window_s: float = Field(30.0, gt=0)
    """Window of rates: at least four scrapes."""
    step_s: float = Field(10.0, gt=0)
    """Bin of the demand history."""
    history_s: float = Field(3600.0, gt=0)
    """Demand history that is read for the forecast."""


class LocalSection(Section):
    """A fleet of real servers on this machine."""

    kind: Literal["local"] = "local"
    """Processes on this machine."""
    state: Path = Path(".local")
    """Folder for ports, sockets, logs and data; relative to the working directory."""


class GatewaySection(Section):
    """A Gateway (gateway.networking.k8s.io) that an HTTPRoute for each model is attached to."""

    name: str
    """Its name."""
    namespace: str | None = None
    """Left out: the fleet's."""
    listener: str | None = None
    """One of its listeners (sectionName). Left out: all."""


class KubernetesSection(Section):
    """Deployments whose label ``triton-placement/pool`` names a pool."""

    kind: Literal["kubernetes"]
    """Pods of a cluster."""
    namespace: str | None = None
    """Where the pools are. Left out: the service account's in a cluster, the context's outside."""
    context: str | None = None
    """Outside a cluster: the kubeconfig's context. Left out: the current one."""
    gateway: GatewaySection | None = None
    """Left out: each model is served by its Service alone."""
    propagation_s: float = Field(2.0, ge=0)
    """Seconds from a change of a Service's endpoints to every proxy and gateway acting on it."""
    linger_s: float = Field(12.0, ge=0)
    """Seconds that a gRPC client may go on with a connection to a pod that is no endpoint any more: Triton's
    ``--grpc-max-connection-age`` of 10 s in the chart, a tenth more of jitter (gRPC A9), and a second."""

"""One Triton server: what it has loaded, whether a model is ready, load and unload.

Everything goes over gRPC where the port is known: a load over HTTP freezes every keep-alive connection that shares its
HTTP worker thread, and with them the inferences of others. Without a gRPC port a short connection of its own is opened
for each HTTP call. A 200 is never taken as proof: who asks for a load or an unload reads ``index`` until it says so.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config import NAME
from tasks.world import Replica

READ_S = 2.0
"""Reads answer within milliseconds, also while a model loads: a server that needs longer is not well."""
CAUSE_CHARS = 300
"""A broken model's cause comes with its traceback; the first line names it."""
SECRET_FILE = "TRITON_CONTROL_SECRET_FILE"
"""Environment: path of a file with ``KEY=SECRET``, as in ``--grpc-restricted-protocol=model-repository:KEY=SECRET``."""


class TritonError(Exception):
    """A call to a replica failed; the text names the replica, the model and the cause."""


class TritonTimeoutError(TritonError):
    """The replica did not answer in time. A load or an unload goes on all the same: the index tells."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A line of the repository index."""

    state: str
    """READY, LOADING, UNLOADING, UNAVAILABLE, or empty: never asked for."""
    reason: str = ""
    """UNAVAILABLE: ``unloaded``, or why its load failed."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts and nanoseconds of a model since it was loaded (a load starts them again; metrics may go on counting)."""

    success: int = 0
    failure: int = 0
    executions: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    last_success_ms: int = 0
    """Unix milliseconds; 0: none yet. Failures do not move it."""

    @property
    def requests(self) -> int:
        return self.success + self.failure


_STATE_ORDER = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE", "")
"""Of a model's versions, the one that counts: one that serves, then one that fills memory."""


class Triton:
    """Control and reading of one replica; safe to share between threads. Use as a context manager, or ``close``.

    Every call raises ``TritonError``, on a timeout ``TritonTimeoutError``.
    """

    def __init__(self, replica: Replica, secret: str | None = None, timeout_s: float = READ_S) -> None:
        """``secret``: ``KEY=SECRET`` of the restricted control protocols; None: from the file that
        ``TRITON_CONTROL_SECRET_FILE`` names, if it is set."""
        self._replica = replica
        self._timeout_s = timeout_s
        key, _, value = (control_secret() if secret is None else secret).partition("=")
        prefix = "triton-grpc-protocol-" if replica.grpc else ""
        self._headers = {prefix + key: value} if key else {}
        self._channel: Any = _grpc_client(replica.grpc) if replica.grpc else None

    def __enter__(self) -> Triton:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def index(self) -> dict[str, ModelStatus]:
        """State of every model in the repository, by name."""
        answer = self._call("get_model_repository_index")
        status: dict[str, ModelStatus] = {}
        for line in answer.get("models", []) if isinstance(answer, dict) else answer:
            new = ModelStatus(line.get("state", ""), line.get("reason", ""))
            old = status.get(line["name"], new)
            status[line["name"]] = min(old, new, key=lambda s: _STATE_ORDER.index(s.state))
        return status

    def is_ready(self, model: str) -> bool:
        """Whether the model itself says that it can serve."""
        return bool(self._call("is_model_ready", model))

    def load(self, model: str, timeout_s: float) -> None:
        """Load, and return when Triton says it is done. Loading what is loaded does nothing."""
        self._call("load_model", model, timeout_s)

    def unload(self, model: str) -> None:
        """Ask for an unload; returns at once, requests in flight and in the queue are answered first."""
        self._call("unload_model", model)

    def statistics(self) -> dict[str, Statistics]:
        """Counters of every loaded model, summed over its versions."""
        lines_by_model: dict[str, list[dict[str, Any]]] = {}
        for line in self._call("get_inference_statistics").get("model_stats", []):
            lines_by_model.setdefault(line["name"], []).append(line)
        return {model: _statistics(lines) for model, lines in lines_by_model.items()}

    def memory_bytes(self) -> dict[str, int]:
        """What each loaded model takes, as its backend reported at its load; models of backends that do not say are
        left out."""
        answer = self._call("get_inference_statistics", as_json=False)
        return memory_by_model(as_statistics(answer) if isinstance(answer, dict) else answer)

    def max_batch_size(self, model: str) -> int:
        """How many inputs a loaded model takes in one; 0: its inputs have no batch dimension."""
        answer = self._call("get_model_config", model)
        config = getattr(answer, "config", answer)
        return int(config.get("max_batch_size", 0) if isinstance(config, dict) else config.max_batch_size)

    def _call(self, method: str, model: str | None = None, timeout_s: float | None = None, as_json: bool = True) -> Any:
        """One call, its answer as Python values, its errors as one."""
        if model is not None and not re.fullmatch(NAME, model):
            raise TritonError(f"{self._where(model)}: not a name that may go into a URL (allowed: {NAME})")
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        arguments: dict[str, Any] = {"model_name": model} if model else {}
        try:
            if self._channel is None:
                return _over_http(self._replica.http, timeout_s, method, arguments | {"headers": self._headers})
            is_read = method in ("get_model_repository_index", "get_inference_statistics")
            arguments |= {"headers": self._headers, "client_timeout": timeout_s} | (
                {"as_json": as_json} if is_read else {}
            )
            return getattr(self._channel, method)(**arguments)
        except Exception as error:  # the clients raise their own, gevent's, socket's and the interpreter's errors
            raise self._translated(error, method, model, timeout_s) from error

    def _translated(self, error: Exception, method: str, model: str | None, timeout_s: float) -> TritonError:
        text = str(getattr(error, "message", lambda: None)() or error or type(error).__name__)
        if "Deadline Exceeded" in text or isinstance(error, TimeoutError):
            return TritonTimeoutError(f"{self._where(model)}: {method} has no answer after {timeout_s:g} s")
        return TritonError(f"{self._where(model)}: {text.strip().splitlines()[0][:CAUSE_CHARS]}")

    def _where(self, model: str | None) -> str:
        where = f"replica {self._replica.name} ({self._replica.grpc or self._replica.http})"
        return f"{where}, model {model}" if model else where


def control_secret() -> str:
    """``KEY=SECRET`` for the control protocols, empty when none is set.

    Raises:
        TritonError: the file cannot be read, or does not hold ``KEY=SECRET``.
    """
    path = os.environ.get(SECRET_FILE)
    if not path:
        return ""
    try:
        secret = Path(path).read_text().strip()
    except OSError as error:
        raise TritonError(f"{SECRET_FILE}: {path} cannot be read: {error.strerror}") from error
    if "=" not in secret:
        raise TritonError(f"{SECRET_FILE}: {path} must hold KEY=SECRET, as in Triton's --grpc-restricted-protocol")
    return secret


def _grpc_client(address: str) -> Any:
    from tritonclient.grpc import InferenceServerClient

    options = [
        # a channel of its own: else the reconnect backoff of an earlier one to the same address goes on
        ("grpc.use_local_subchannel_pool", 1),
        # replicas are inside the cluster, whatever proxy the environment names
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", -1),
    ]
    return InferenceServerClient(address, channel_args=options)


def _over_http(address: str, timeout_s: float, method: str, arguments: dict[str, Any]) -> Any:
    from tritonclient.http import InferenceServerClient

    with InferenceServerClient(address, connection_timeout=timeout_s, network_timeout=timeout_s) as client:
        return getattr(client, method)(**arguments)


def _statistics(lines: list[dict[str, Any]]) -> Statistics:
    def total(kind: str, field: str = "ns") -> int:
        return sum(int(line.get("inference_stats", {}).get(kind, {}).get(field, 0)) for line in lines)

    return Statistics(
        success=total("success", "count"),
        failure=total("fail", "count"),
        executions=sum(int(line.get("execution_count", 0)) for line in lines),
        queue_ns=total("queue"),
        compute_ns=sum(total(part) for part in ("compute_input", "compute_infer", "compute_output")),
        last_success_ms=max((int(line.get("last_inference", 0)) for line in lines), default=0),
    )


def as_statistics(answer: dict[str, Any]) -> Any:
    """What HTTP answers, as gRPC has it."""
    from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
    from tritonclient.grpc.service_pb2 import ModelStatisticsResponse

    return ParseDict(answer, ModelStatisticsResponse(), ignore_unknown_fields=True)


def memory_by_model(answer: Any) -> dict[str, int]:
    """Sum of what a model's backend reports of GPUs, of all that it reports if none of it is a GPU's; others left out.

    ``answer``: a ``ModelStatisticsResponse``, read as it is: as JSON it costs 15 ms for 20 models.
    """
    found: dict[str, int] = {}
    for line in answer.model_stats:
        on_gpu = sum(use.byte_size for use in line.memory_usage if use.type == "GPU")
        if used := on_gpu or sum(use.byte_size for use in line.memory_usage):
            found[line.name] = found.get(line.name, 0) + used
    return found

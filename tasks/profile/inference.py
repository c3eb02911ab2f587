"""Inference requests of zeros to one model in one replica, some at a time, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.clients.triton import Statistics, Triton, TritonError
from tasks.world import Replica

FREE_SIZE = 64
"""Of a free dimension whose largest size the configuration does not name."""
LEAST_REQUESTS = 20
"""Of a measurement: the mean of fewer says little."""
LEAST_S = 2.0
"""Of a measurement: with quick models, longer than a hiccup of the machine."""
MOST_S = 20.0
"""Of a measurement: a slow model is measured by fewer requests."""
TIMEOUT_S = 120.0
"""Of one request: the largest batch of a slow model."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What was seen of a model with so many requests at a time."""

    concurrency: int
    requests: int
    rps: float
    service_ms: float
    """Of the instance's time, the share of one request: by Triton's own counters."""
    latency_ms: float
    latency_cv2: float
    """Squared coefficient of variation of the latencies: at concurrency 1, about that of the service time."""


class Asker:
    """Sends requests to one model; its inputs are made once."""

    def __init__(self, replica: Replica, model: str, largest: Mapping[str, Sequence[int]], max_batch: int) -> None:
        self._replica, self._model, self._largest, self._max_batch = replica, model, largest, max_batch
        with self._client() as client:
            self._inputs = client.get_model_metadata(model)["inputs"]

    def warm_up(self) -> None:
        """Requests at the largest batch and shape, until its memory has grown to what it will be.

        Raises:
            TritonError: it answers with an error.
        """
        tensors = self._tensors(max(1, self._max_batch))
        for _ in range(3):
            self._ask_for(tensors, 0.0, 1)

    def timed(self, triton: Triton, concurrency: int) -> Timing:
        """Ask with so many requests at a time, for a few seconds.

        Raises:
            TritonError: it answers with an error.
        """
        tensors = self._tensors(1)
        before, start = triton.statistics()[self._model], time.monotonic()
        least = -(-LEAST_REQUESTS // concurrency)
        with ThreadPoolExecutor(concurrency, thread_name_prefix="ask") as pool:
            asked = [pool.submit(self._ask_for, tensors, LEAST_S, least) for _ in range(concurrency)]
            latencies = np.concatenate([one.result() for one in asked])
        seconds, after = time.monotonic() - start, triton.statistics()[self._model]
        return Timing(
            concurrency,
            len(latencies),
            len(latencies) / seconds,
            service_ms(before, after),
            float(latencies.mean() * 1000),
            variability(latencies),
        )

    def _ask_for(self, tensors: list[tuple[str, str, Any]], least_s: float, least: int) -> list[float]:
        """Latencies (s) of one request after the other."""
        from tritonclient.http import InferInput
        from tritonclient.utils import InferenceServerException

        inputs = []
        for name, datatype, values in tensors:
            tensor = InferInput(name, list(values.shape), datatype)
            inputs.append(tensor.set_data_from_numpy(values))
        latencies: list[float] = []
        start = time.monotonic()
        with self._client() as client:
            while len(latencies) < least or time.monotonic() - start < least_s:
                sent = time.monotonic()
                if sent - start > MOST_S and latencies:
                    break
                try:
                    client.infer(self._model, inputs)
                except (InferenceServerException, OSError) as error:
                    raise TritonError(f"replica {self._replica.name}, model {self._model}: {error}") from error
                latencies.append(time.monotonic() - sent)
        return latencies

    def _tensors(self, batch: int) -> list[tuple[str, str, Any]]:
        heads = [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in self._inputs]
        return [(name, datatype, self._zeros(name, datatype, dims, batch)) for name, datatype, dims in heads]

    def _zeros(self, name: str, datatype: str, dims: Sequence[Any], batch: int) -> Any:
        """Zeros, as in Triton's own warm-up; texts of one character."""
        from tritonclient.utils import triton_to_np_dtype

        free = [int(dim) for dim in (dims[1:] if self._max_batch else dims)]
        shape = list(self._largest.get(name, [FREE_SIZE if dim < 0 else dim for dim in free]))
        if self._max_batch:
            shape = [batch, *shape]
        if datatype == "BYTES":
            return np.full(shape, b"0", dtype=object)
        return np.zeros(shape, dtype=triton_to_np_dtype(datatype))

    def _client(self) -> Any:
        from tritonclient.http import InferenceServerClient

        return InferenceServerClient(self._replica.http, connection_timeout=5.0, network_timeout=TIMEOUT_S)


def variability(latencies: NDArray[np.float64]) -> float:
    """Squared coefficient of variation without the slowest fiftieth: one hiccup of the machine among a hundred requests
    is not how a model's times vary. Of exponential times it gives 0.9, not 1."""
    usual = np.minimum(latencies, np.quantile(latencies, 0.98))
    return float(usual.var() / usual.mean() ** 2)


def service_ms(before: Statistics, after: Statistics) -> float:
    """A request's share of the instance's time: requests executed together are each counted with all of it."""
    requests, executions = after.success - before.success, after.executions - before.executions
    together = max(1.0, requests / executions) if executions else 1.0
    return (after.compute_ns - before.compute_ns) / 1e6 / max(requests, 1) / together

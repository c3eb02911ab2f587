"""Requests that found no copy, counted by the gateway: nobody else sees them."""

from __future__ import annotations

import http.client
import json
import logging
import time
from collections.abc import Mapping
from contextlib import closing

from tasks.clients.prometheus import Prometheus, PrometheusError

log = logging.getLogger(__name__)

COUNTER = "upstream_cx_none_healthy"
"""Of a cluster, which is a model: requests for which no endpoint was there, or healthy."""
ADMIN_S = 2.0


def from_prometheus(url: str, query: str) -> Mapping[str, float] | None:
    """Counters by model; None: Prometheus cannot be asked, or knows of none yet."""
    try:
        with Prometheus(url) as prometheus:
            frame = prometheus.instant(query, time.time())
    except PrometheusError as error:
        log.warning("unserved requests are not seen: %s", error)
        return None
    if "model" not in frame:
        return None
    return {str(model): float(value) for model, value in zip(frame["model"], frame["value"], strict=True)}


def from_envoy(admin: str) -> Mapping[str, float] | None:
    """Counters by model, of the local fleet's Envoy at ``host:port``; None: it does not answer."""
    path = f"/stats?format=json&type=Counters&filter=^cluster[.].%2B[.]{COUNTER}$"
    try:
        with closing(http.client.HTTPConnection(admin, timeout=ADMIN_S)) as connection:
            connection.request("GET", path)
            stats = json.loads(connection.getresponse().read())["stats"]
    except (OSError, http.client.HTTPException, ValueError) as error:
        log.warning("unserved requests are not seen, the gateway does not answer: %s", error)
        return None
    return {stat["name"].removeprefix("cluster.").removesuffix(f".{COUNTER}"): float(stat["value"]) for stat in stats}

"""Faults between a fleet and a real API server: chosen calls get another answer, all calls are counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import urllib3

from tasks.fleets.kubernetes import KubernetesFleet

Fault = Callable[[str, str, int], tuple[int, dict[str, str]] | None]
"""Of (method, path, how many such calls before): status and headers of the answer in its place, or None."""


class Faulty:
    """Stands in for the connection pool of a fleet."""

    def __init__(self, fleet: KubernetesFleet, fault: Fault = lambda *_: None) -> None:
        rest = fleet._api._client.rest_client
        self._pool, self._fault = rest.pool_manager, fault
        self.calls: Counter[tuple[str, str]] = Counter()
        rest.pool_manager = self

    def request(self, method: str, url: str, **arguments: Any) -> Any:
        path = urlsplit(url).path
        before = self.calls[method, path]
        self.calls[method, path] += 1
        if (answer := self._fault(method, path, before)) is None:
            return self._pool.request(method, url, **arguments)
        status, headers = answer
        if not status:
            raise urllib3.exceptions.ProtocolError("connection reset")
        body = json.dumps({"kind": "Status", "message": "as the test wants it"}).encode()
        return urllib3.HTTPResponse(body=body, status=status, headers=headers, preload_content=True)

"""The Kubernetes API as plain JSON: one way to call it, with retries, and errors that name the right that is missing.

The official client finds the cluster and its credentials; its generated classes are not used, since building them takes
seconds for a thousand pods.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from tasks.fleets import FleetUnreadableError
from tasks.fleets.kubernetes.call import Call, Json

MANAGER = "triton-placement"
"""Our field manager, and the value of ``app.kubernetes.io/managed-by`` on what we make."""
TIMEOUT_S = 10.0
CONNECT_S = 3.0
GIVE_UP_S = 25.0
"""Longer than an API server takes to restart, shorter than the lease lasts."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
PAGE = 500
RETRIED = (0, 408, 429, 500, 502, 503, 504)
"""Throttled, not answered, or not for now."""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class ApiError(FleetUnreadableError):
    """What the API server answered to one call; ``status`` 0: it did not answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """One namespace of a cluster. May be used from several threads. Every call raises ``ApiError``."""

    def __init__(self, client: Any, namespace: str, give_up_s: float = GIVE_UP_S) -> None:
        """``client``: a ``kubernetes.client.ApiClient``."""
        self._client, self.namespace, self._give_up_s = client, namespace, give_up_s
        self._served: dict[tuple[str, ...], str | None] = {}

    def path(self, group_version: str, resource: str, *rest: str) -> str:
        """Path of a resource in the namespace: ``path("apps/v1", "deployments", NAME, "scale")``."""
        root = "apis" if "/" in group_version else "api"
        return "/" + "/".join((root, group_version, "namespaces", self.namespace, resource, *rest))

    def served(self, *group_versions: str) -> str | None:
        """The first of these versions of one API group that the server has; None: none of them."""
        if group_versions not in self._served:
            group = group_versions[0].partition("/")[0]
            try:
                has = {version["groupVersion"] for version in self.get(f"/apis/{group}")["versions"]}
            except ApiError as error:
                if error.status != 404:
                    raise
                has = set()
            self._served[group_versions] = next((version for version in group_versions if version in has), None)
        return self._served[group_versions]

    def get(self, path: str) -> Json:
        return self.call(Call("GET", path))

    def items(self, path: str, **selectors: str) -> list[Json]:
        """The whole list."""
        return self.items_and_version(path, **selectors)[0]

    def items_and_version(self, path: str, **selectors: str) -> tuple[list[Json], str]:
        """The whole list and the resource version from which a watch goes on. It is read in pages, and again from the
        start when it expired between two of them (410)."""
        deadline = time.monotonic() + self._give_up_s
        while True:
            try:
                return self._pages(path, {**selectors, "limit": str(PAGE)})
            except ApiError as error:
                if error.status != 410 or time.monotonic() > deadline:
                    raise

    def watch(self, path: str, version: str, seconds: float, **selectors: str) -> Iterator[Json]:
        """Changes (``type``, ``object``) after a resource version, for so long at most.

        Raises:
            ApiError: 410, the version is too old: list again. 0, the connection broke off: watch on.
        """
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": f"{seconds:.0f}"}
        call = Call("GET", path, {**selectors, **query, "allowWatchBookmarks": "true"})
        answer = self._send(call, seconds + TIMEOUT_S)
        try:
            if answer.status >= 400:
                raise _refusal(call, answer.status, answer.read())
            for line in _lines(answer, call):
                change = json.loads(line)
                if change["type"] == "ERROR":
                    raise ApiError(int(change["object"].get("code", 500)), f"{call}: {change['object'].get('message')}")
                yield change
        finally:
            answer.close()

    def patch(self, path: str, body: Json, kind: str = MERGE, *, force: bool = False) -> Json:
        """Change what the body names, as our field manager. ``APPLY`` creates what is not there; ``force`` takes fields
        over from other managers."""
        query = {"fieldManager": MANAGER} | ({"force": "true"} if force else {})
        return self.call(Call("PATCH", path, query, body, kind))

    def call(self, call: Call) -> Json:
        """One call. Throttling, server errors, timeouts and lost connections are tried again with growing pauses, and
        so are conflicts of a change that does not insist on a resource version."""
        pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + self._give_up_s
        while True:
            asked_s = 0.0
            try:
                answer = self._send(call, TIMEOUT_S)
                if answer.status < 400:
                    content: Json = json.loads(answer.data)
                    return content
                asked_s = _retry_after_s(answer)
                error = _refusal(call, answer.status, answer.data)
            except ApiError as unanswered:
                error = unanswered
            wait_s = max(asked_s, pause_s * random.uniform(0.5, 1.0))
            is_retried = error.status in RETRIED or (error.status == 409 and not call.is_conditional)
            if not is_retried or time.monotonic() + wait_s > deadline:
                raise error
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _pages(self, path: str, query: dict[str, str]) -> tuple[list[Json], str]:
        found: list[Json] = []
        while True:
            page = self.call(Call("GET", path, query))
            found += page["items"]
            if not (rest := page["metadata"].get("continue")):
                return found, page["metadata"]["resourceVersion"]
            query = {**query, "continue": rest}

    def _send(self, call: Call, timeout_s: float) -> Any:
        """The HTTP answer, of a watch as a stream."""
        import urllib3

        settings = self._client.configuration
        headers = {"Accept": "application/json", "User-Agent": MANAGER, **self._client.default_headers}
        headers |= {key["key"]: key["value"] for key in settings.auth_settings().values() if key["in"] == "header"}
        if call.body is not None:
            headers["Content-Type"] = call.kind
        try:
            return self._client.rest_client.pool_manager.request(
                call.method,
                f"{settings.host}{call.path}" + (f"?{urlencode(call.query)}" if call.query else ""),
                body=json.dumps(call.body) if call.body is not None else None,
                headers=headers,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=timeout_s),
                preload_content=not call.is_watch,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, f"the Kubernetes API at {settings.host} does not answer {call}: {error}") from error


def _refusal(call: Call, status: int, content: bytes) -> ApiError:
    try:
        text = json.loads(content).get("message", "")
    except ValueError:
        text = content[:200].decode(errors="replace")
    why = f"the Kubernetes API answers {status} to {call}: {text}"
    if status == 403:
        verbs = " and ".join(map(repr, call.verbs))
        why += f"; remedy: a Role that grants {verbs} on {call.resource!r}, as the chart's does"
    return ApiError(status, why)


def _retry_after_s(answer: Any) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _lines(answer: Any, call: Call) -> Iterator[bytes]:
    import urllib3

    rest = b""
    try:
        for chunk in answer.stream(None):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from filter(None, lines)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ApiError(0, f"{call} broke off: {error}") from error

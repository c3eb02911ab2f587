"""One call of the Kubernetes API, and the right that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

APPLY = "application/apply-patch+yaml"
"""Content type of server-side apply."""
_VERB = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Call:
    """Method, path, query and body, as RBAC and HTTP see them."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    kind: str = "application/json"
    """Content type of the body."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_conditional(self) -> bool:
        """A conflict means that somebody else was first, so trying it again unchanged is of no use."""
        return self.method == "POST" or "resourceVersion" in (self.body or {}).get("metadata", {})

    @property
    def is_watch(self) -> bool:
        return "watch" in self.query

    @property
    def verbs(self) -> tuple[str, ...]:
        """As in a Role. What is applied is created where it is not there."""
        if self.method == "GET" and not self._parts[1]:
            return ("watch",) if self.is_watch else ("list",)
        return ("create", "patch") if self.kind == APPLY else (_VERB[self.method],)

    @property
    def resource(self) -> str:
        """As in a Role: ``pods/status`` of ``/api/v1/namespaces/demo/pods/small-0/status``."""
        resource, _, subresource = self._parts
        return f"{resource}/{subresource}" if subresource else resource

    @property
    def _parts(self) -> tuple[str, str, str]:
        """Resource, name and subresource; nodes are the only ones without a namespace that are read."""
        _, namespaced, rest = self.path.partition("/namespaces/")
        parts = rest.split("/")[1:] if namespaced else self.path.split("/")[3:]
        resource, name, subresource = (*parts, "", "", "")[:3]
        return resource, name, subresource

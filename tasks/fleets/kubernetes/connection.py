"""The cluster that the configuration names: its address and credentials, found by the official client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.fleets import FleetUnreadableError

CONNECTIONS = 40
"""More than steps under way at the same time (32): none waits for another's connection."""


def api_client(context: str | None, kubeconfig: Path | None = None) -> tuple[Any, str]:
    """A ``kubernetes.client.ApiClient`` and the namespace that goes with its credentials: in a cluster the service
    account's (its token is read anew when it rotates), outside the context's of the kubeconfig (None: where KUBECONFIG
    says, or the usual place).

    Raises:
        FleetUnreadableError: there is neither.
    """
    from kubernetes import client, config
    from kubernetes.config import incluster_config

    settings, token = client.Configuration(), Path(incluster_config.SERVICE_TOKEN_FILENAME)
    loaders: Any = config
    try:
        if context is None and kubeconfig is None and token.exists():
            loaders.load_incluster_config(client_configuration=settings)
            namespace = token.with_name("namespace").read_text().strip()
        else:
            path = str(kubeconfig) if kubeconfig else None
            loaders.load_kube_config(path, context=context, client_configuration=settings)
            contexts, active = loaders.list_kube_config_contexts(path)
            chosen = next((named for named in contexts if named["name"] == context), active)
            namespace = chosen["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        raise FleetUnreadableError(
            f"no Kubernetes cluster to talk to: {error}; set KUBECONFIG, or run in one"
        ) from error
    settings.connection_pool_maxsize = CONNECTIONS
    return client.ApiClient(settings), namespace

"""Changes as Prefect events, through the server's REST API: told once it has answered, or told again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.watch.changes import Change


class NotToldError(Exception):
    """The Prefect server did not take the events; the text says why."""


def events(found: Sequence[Change], fleet: str) -> list[dict[str, Any]]:
    """One event a change, as JSON, oldest first.

    ``fleet``: local or kubernetes. Of what changed at the same time the first asks for a tick, in a label that the
    deployments' triggers look for: one tick sees it all.
    """
    return [_event(change, fleet, asks=number == 0) for number, change in enumerate(found)]


def tell(found: Sequence[Change], fleet: str) -> None:
    """Send them to the Prefect server that PREFECT_API_URL names.

    Raises:
        NotToldError: it did not take them.
    """
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    path: Any = "/events"
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", path, json=events(found, fleet)).raise_for_status()
    except (HTTPError, OSError, RuntimeError) as error:
        raise NotToldError(f"{type(error).__name__}: {error}") from error


def _event(change: Change, fleet: str, asks: bool) -> dict[str, Any]:
    from prefect.events import Event

    kind = change.event.split(".")[1]
    resource = {
        "prefect.resource.id": f"triton.{kind}.{change.subject}",
        "prefect.resource.name": change.subject,
        "triton.fleet": fleet,
    }
    related = {
        "prefect.resource.id": f"triton.pool.{change.pool}",
        "prefect.resource.name": change.pool,
        "prefect.resource.role": "pool",
    }
    event = Event.model_validate(
        {
            "event": change.event,
            "resource": resource | ({"triton.asks-for": "tick"} if asks else {}),
            "related": [related] if change.pool and kind != "pool" else [],
            "payload": {"text": change.text},
        }
    )
    return event.model_dump(mode="json")


def home() -> Path:
    """The folder where Prefect keeps what is this process' own: PREFECT_HOME."""
    from prefect.settings import get_current_settings

    return Path(get_current_settings().home)

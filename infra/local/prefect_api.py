"""The REST API of the local fleet's Prefect server, asked until it is not busy.

Prefect's own client is not imported here: that would cost every `up` a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import requests

from tasks.fleets.state import State

HEALTHY_S = 10.0
"""A server that takes longer to say that it is well is not."""
ANSWER_S = 60.0
"""As long as Prefect's own client waits: on a machine that does a lot of other work, a busy server takes its time."""
BUSY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Its database takes one writer at a time: a server that is busy says 503, and wants to be asked again."""


class PrefectError(Exception):
    """Prefect refused something; the text says what and why."""


def api_url(state: State) -> str:
    return f"{state.url('prefect')}/api"


def call(state: State, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What the server answers, None where it has nothing to say.

    Raises:
        PrefectError: the server refuses, or does not answer.
    """
    answer = _unless_refused(_answer(state, method, path, body))
    return answer.json() if answer.content else None


def has(state: State, path: str) -> bool:
    """There is such a thing.

    Raises:
        PrefectError: the server does not say whether there is, or does not answer.
    """
    answer = _answer(state, "GET", path)
    return answer.status_code != HTTPStatus.NOT_FOUND and _unless_refused(answer).ok


def is_healthy(state: State) -> bool:
    try:
        return requests.get(f"{api_url(state)}/health", timeout=HEALTHY_S).ok
    except requests.RequestException:
        return False


def _answer(state: State, method: str, path: str, body: Mapping[str, Any] | None = None) -> requests.Response:
    url = f"{api_url(state)}/{path}"
    for pause_s in (*BUSY_PAUSES_S, None):
        try:
            answer = requests.request(method, url, json=body, timeout=ANSWER_S)
        except requests.RequestException as error:
            raise PrefectError(f"the Prefect server does not answer on {url}: {type(error).__name__}") from error
        if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE or pause_s is None:
            break
        time.sleep(pause_s)
    return answer


def _unless_refused(answer: requests.Response) -> requests.Response:
    if not answer.ok:
        raise PrefectError(f"{answer.url}: {answer.status_code} {answer.text[:500]}")
    return answer

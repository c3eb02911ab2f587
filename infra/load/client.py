"""One request to the gateway, and what became of it."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import aiohttp

from infra.load.inputs import HEAD_LENGTH, Payload, payload

COLD_HEADER = "x-triton-cold"
"""The gateway sets it on a 503 for a model at zero copies by policy: the request was counted, and wakes it."""
REPLICA_HEADER = "x-triton-replica"
"""Who answered, if the gateway tells."""
DETAIL_CHARACTERS = 300


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    COLD = "cold"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request."""

    outcome: Outcome
    status: int = 0
    """HTTP status; 0: none came."""
    cause: str = ""
    """Of a failure: ``http 500``, ``empty answer``, ``refused``, ``reset``, ``timeout``, ``unreachable``,
    ``client out of files``."""
    detail: str = ""
    replica: str = ""


class Client:
    """Sends inference requests to a gateway. Connections are as many as requests are in flight: open loop.

    What a model takes is asked of the model itself. A request for one whose inputs are not known yet asks for its
    metadata first; where that is not answered (a cold model, a gateway that is gone), that is what became of the
    request. So a request for a cold model reaches the gateway once, and nothing but the scenario wakes it.
    """

    def __init__(self, gateway: str, timeout_s: float) -> None:
        self._gateway = gateway.rstrip("/")
        self._payload_by_model: dict[str, Payload] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=timeout_s + 1),
            auto_decompress=False,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(self, model: str) -> Answer:
        """One inference, with the metadata asked for first where it is not known."""
        try:
            if model not in self._payload_by_model:
                refusal = await self.learn(model)
                if refusal is not None:
                    return refusal
            return await self._infer(model, self._payload_by_model[model])
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return _failure(error)

    async def learn(self, model: str) -> Answer | None:
        """Ask the model what it takes. None: it answered; else what became of the question.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError: no answer came.
        """
        async with self._session.get(f"{self._gateway}/v2/models/{model}") as response:
            body = await response.read()
            if response.status != 200:
                return _refusal(response.status, response.headers, body)
            try:
                self._payload_by_model[model] = payload(json.loads(body))
            except (ValueError, TypeError, KeyError) as error:
                return Answer(Outcome.FAILED, 200, "metadata not understood", f"{model}: {error}"[:DETAIL_CHARACTERS])
        return None

    async def _infer(self, model: str, payload: Payload) -> Answer:
        url = f"{self._gateway}/v2/models/{model}/infer"
        # BytesIO shares the bytes, and large ones are then written in pieces, between which others get their turn
        async with self._session.post(url, data=io.BytesIO(payload.body), headers=payload.headers) as response:
            body = await response.read()
            if response.status != 200:
                return _refusal(response.status, response.headers, body)
            replica = response.headers.get(REPLICA_HEADER, "")
            # a model whose environment is broken can answer 200 with outputs of no bytes
            if not body or response.headers.get(HEAD_LENGTH) == str(len(body)):
                return Answer(Outcome.FAILED, 200, "empty answer", "200, but its outputs have no bytes", replica)
            return Answer(Outcome.SUCCEEDED, 200, replica=replica)


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    replica, detail = headers.get(REPLICA_HEADER, ""), body[:DETAIL_CHARACTERS].decode(errors="replace")
    if status == 503 and COLD_HEADER in headers:
        return Answer(Outcome.COLD, status, "cold", detail, replica)
    return Answer(Outcome.FAILED, status, f"http {status}", detail, replica)


def _failure(error: Exception) -> Answer:
    """The cause of a request that got no answer."""
    number = getattr(error, "errno", None)
    if isinstance(error, TimeoutError):
        cause = "timeout"
    elif number == errno.EMFILE:
        cause = "client out of files"
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = "refused" if isinstance(error.os_error, ConnectionRefusedError) else "unreachable"
    elif isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | OSError):
        cause = "reset"
    else:
        cause = "not understood"
    return Answer(Outcome.FAILED, 0, cause, f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS])

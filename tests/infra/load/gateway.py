"""A real HTTP server that speaks enough of Triton's protocol, in a thread of its own, with models that misbehave."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from aiohttp import web

SMALL: list[dict[str, object]] = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
SQUEEZENET: list[dict[str, object]] = [{"name": "data_0", "datatype": "FP32", "shape": [1, 3, 224, 224]}]
INPUTS: Mapping[str, list[dict[str, object]]] = {"squeezenet": SQUEEZENET}


@dataclass
class Gateway:
    """What it serves, and what it saw."""

    delay_s: Mapping[str, float] = field(default_factory=dict)
    """Model to how long it takes; default none."""
    cold: set[str] = field(default_factory=set)
    resets: set[str] = field(default_factory=set)
    """Models whose connection is cut in the middle of a request."""
    status: Mapping[str, int] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)
    """Models that answer 200 with outputs of no bytes."""
    url: str = ""
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests seen by (``metadata`` or ``infer``, model)."""
    arrived: list[tuple[str, float]] = field(default_factory=list)
    """Inferences by model and time (``time.perf_counter``, which processes of one machine share)."""
    wrong: list[str] = field(default_factory=list)
    """Bodies that do not keep to the protocol."""

    async def metadata(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        self.asked["metadata", model] += 1
        if model in self.cold:
            return _cold(model)
        return web.json_response({"name": model, "inputs": INPUTS.get(model, SMALL)})

    async def infer(self, request: web.Request) -> web.StreamResponse:
        model = request.match_info["model"]
        self.arrived.append((model, time.perf_counter()))
        self.asked["infer", model] += 1
        body = await request.read()
        self._check(request, body)
        await asyncio.sleep(self.delay_s.get(model, 0.0))
        if model in self.cold:
            return _cold(model)
        if model in self.resets:
            assert request.transport
            request.transport.abort()
        if model in self.status:
            return web.json_response({"error": f"{model} is broken"}, status=self.status[model])
        head = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "x-triton-replica": "small-0"}
        return web.Response(body=head if model in self.empty else head + b"\0\0\0\0", headers=headers)

    def _check(self, request: web.Request, body: bytes) -> None:
        length = int(request.headers["Inference-Header-Content-Length"])
        inputs = json.loads(body[:length])["inputs"]
        announced = sum(tensor["parameters"]["binary_data_size"] for tensor in inputs)
        if announced != len(body) - length:
            self.wrong.append(f"{announced} bytes announced, {len(body) - length} came")


def _cold(model: str) -> web.Response:
    return web.Response(status=503, text=f"{model} has no copy", headers={"x-triton-cold": model})


@asynccontextmanager
async def _served(gateway: Gateway) -> AsyncIterator[None]:
    app = web.Application(client_max_size=2**24)
    app.router.add_get("/v2/models/{model}", gateway.metadata)
    app.router.add_post("/v2/models/{model}/infer", gateway.infer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()


@contextmanager
def served(gateway: Gateway) -> Iterator[Gateway]:
    """Serve it on a free loopback port until the end of the block."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with _served(gateway):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield gateway
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()

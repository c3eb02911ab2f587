"""The open loop: each request leaves when it arrives, whatever became of those before it."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from infra.load.client import Client, Outcome
from infra.load.profile import Mark, Profile, arrivals
from infra.load.report import Clock, Report, Sent, summarise

PROGRESS_S = 0.5
STOP_S = 0.1
"""A run that is told to stop does so within this long."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    elapsed_s: float
    duration_s: float
    sent: int
    in_flight: int
    cold: int
    failed: int
    rps: float
    """Sent in a second, since the last progress."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is driven and watched."""

    timeout_s: float = 30.0
    """A request without its whole answer by then has failed."""
    on_mark: Callable[[Mark], None] | None = None
    """Called at each mark, in a thread of its own: it may take its time."""
    on_progress: Callable[[Progress], None] | None = None
    """Called twice a second, in the loop: it must be quick."""
    stop: asyncio.Event | None = None
    """Set: the run ends early, with its report."""


@dataclass(slots=True)
class _Run:
    """What a run has so far."""

    profile: Profile
    options: Options
    start: float = 0.0
    """``time.perf_counter()`` at the profile's zero."""
    sent: list[Sent] = field(default_factory=list)
    in_flight: set[asyncio.Task[None]] = field(default_factory=set)
    cold: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.start

    @property
    def is_stopped(self) -> bool:
        return self.options.stop is not None and self.options.stop.is_set()

    async def until(self, at_s: float) -> bool:
        """Wait for a time of the profile; False: told to stop. Lets answers in even when it is late."""
        await asyncio.sleep(0)
        while not self.is_stopped:
            delay_s = at_s - self.elapsed_s
            if delay_s <= 0:
                return True
            await asyncio.sleep(min(delay_s, STOP_S))
        return False


async def run(profile: Profile, gateway: str, options: Options | None = None) -> Report:
    """Send a profile's requests through a gateway (``http://host:port``) and report what became of each.

    Open loop: a request leaves when it arrives, whatever became of those before it. ``options.stop`` ends the run
    early; those in flight are still waited for, at most the timeout. Nothing that the gateway does raises.
    """
    _raise_file_limit()
    state = _Run(profile, options or Options())
    async with Client(gateway, state.options.timeout_s) as client:
        await _learn(client, state)
        cpu_start_s, started_at, state.start = time.process_time(), time.time(), time.perf_counter()
        side = [asyncio.create_task(_marks(state)), asyncio.create_task(_progress(state))]
        await _send_all(client, state)
        sending_s = min(state.elapsed_s, profile.duration_s)
        if state.in_flight:
            await asyncio.wait(set(state.in_flight))
        clock = Clock(started_at, sending_s, state.elapsed_s, time.process_time() - cpu_start_s)
        for task in side:
            task.cancel()
        await asyncio.gather(*side, return_exceptions=True)
    return summarise(profile, gateway, state.sent, clock, tuple(state.notes))


def _raise_file_limit() -> None:
    """As many open connections as the system allows: a slow fleet answers late, and arrivals do not wait for it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _learn(client: Client, state: _Run) -> None:
    """Ask the models that are wanted at once what they take; others are asked when their first request comes, so that
    a model is not woken before its time."""
    for model in sorted({s.model for s in state.profile.segments if s.start_s == 0 and s.start_rps > 0}):
        try:
            refusal = await client.learn(model)
            why = refusal and f"{refusal.cause}: {refusal.detail}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = f"{type(error).__name__}: {error}"
        if why:
            state.notes.append(f"{model} did not say before the start what it takes ({why})")


async def _send_all(client: Client, state: _Run) -> None:
    schedule = arrivals(state.profile)
    for at_s, index in zip(schedule.times_s.tolist(), schedule.model_index.tolist(), strict=True):
        if not await state.until(at_s):
            return
        task = asyncio.create_task(_send(client, schedule.models[index], at_s, state))
        state.in_flight.add(task)
        task.add_done_callback(state.in_flight.discard)
    await state.until(state.profile.duration_s)


async def _send(client: Client, model: str, intended_s: float, state: _Run) -> None:
    sent_s = state.elapsed_s
    answer = await client.request(model)
    # from the intended arrival, not from when it left: a late client must not make the fleet look fast
    state.sent.append(Sent(model, intended_s, sent_s, (state.elapsed_s - intended_s) * 1000, answer))
    state.cold += answer.outcome is Outcome.COLD
    state.failed += answer.outcome is Outcome.FAILED


async def _marks(state: _Run) -> None:
    for mark in sorted(state.profile.marks, key=lambda mark: mark.at_s):
        if not await state.until(mark.at_s) or state.options.on_mark is None:
            return
        try:
            await asyncio.to_thread(state.options.on_mark, mark)
        except Exception as error:  # the driver's code: its failure is told, and the load goes on
            state.notes.append(f"mark {mark} at {mark.at_s:.0f} s failed: {type(error).__name__}: {error}")


async def _progress(state: _Run) -> None:
    last_sent, last_s = 0, 0.0
    while state.options.on_progress is not None:
        await asyncio.sleep(PROGRESS_S)
        sent, now_s = len(state.sent) + len(state.in_flight), state.elapsed_s
        rps = (sent - last_sent) / (now_s - last_s)
        state.options.on_progress(
            Progress(now_s, state.profile.duration_s, sent, len(state.in_flight), state.cold, state.failed, rps)
        )
        last_sent, last_s = sent, now_s

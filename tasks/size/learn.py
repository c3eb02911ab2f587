"""What is learned of service times while serving: slowly, and with how sure it is.

An exponentially weighted mean and variance of the windows' means (Finch, *Incremental calculation of weighted mean and
variance*, 2009, section 9): one window moves little, a lasting change is followed within a few ticks. What was learned
is pushed as metrics and read back; where it is lost, the window's own mean stands in, as on the first day.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.world import LEARNED_COLUMNS, Learned, Observation

RATE = 0.25
"""Weight of the newest window: of a lasting change two thirds are learned in four ticks."""

LearnedTimes = Mapping[tuple[str, str], Learned]
"""By model and GPU type."""


def learn(observation: Observation, measured: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], Learned]:
    """What past ticks learned, each refined by this window's mean service time (ms) where there is one."""
    before = {
        (str(model), str(gpu_type)): Learned(float(service_ms), float(spread_ms), int(windows))
        for model, gpu_type, service_ms, spread_ms, windows in observation.learned[list(LEARNED_COLUMNS)].to_numpy()
    }
    return before | {key: refined(before.get(key), service_ms) for key, service_ms in measured.items()}


def refined(before: Learned | None, service_ms: float) -> Learned:
    """With one more window; the first ones count alike.

    50 +- 0 ms over one window, then 60: the rate is 1 / 2, the mean 55, the variance 1/2 * (0 + 1/2 * 10^2) = 25.
    """
    if before is None:
        return Learned(service_ms, 0.0, 1)
    rate = max(RATE, 1 / (before.windows + 1))
    miss_ms = service_ms - before.service_ms
    variance = (1 - rate) * (before.spread_ms**2 + rate * miss_ms**2)
    return Learned(before.service_ms + rate * miss_ms, variance**0.5, before.windows + 1)

"""Profile: what each model needs on each GPU type, measured in spare replicas, beside who asks for it."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.config import ConfigError, read_config
from tasks.fleets import connect
from tasks.observe.series import read_series
from tasks.profile import profile_models
from tasks.profile.report import record


@flow(name="profile")
def profile(config: str = "infra/local/placement.yaml", models: list[str] | None = None) -> State[Any]:
    """Measure memory, load time and service time of the models (left out: all), and write them into the catalogue.

    Nothing that serves is touched: it is done in replicas that hold nothing and get no request.
    """
    settings = read_config(config, has_needs=False)
    if unknown := sorted(set(models or ()) - set(settings.models)):
        known = ", ".join(sorted(settings.models))
        raise ConfigError(f"models: {', '.join(unknown)} not in {config}; there are: {known}")
    live = connect(settings)
    profiles = profile_models(settings, live, models or settings.models, wait_s=2 * settings.limits.act_s)
    url = settings.metrics.prometheus_url or live.prometheus_url
    series = read_series(url, settings, sorted(settings.models), time.time())
    line = record(config, settings, profiles, series)
    get_run_logger().info(line)
    return Completed(message=line) if profiles.measured else Failed(message=line)


if __name__ == "__main__":
    profile()

"""The listener: looks at the fleet all the time, and starts a tick as soon as something changed that asks for one.

``python -m flows.watch CONFIG``; it runs until it is stopped. What starts the tick is a Prefect event, and the trigger
that ``prefect.yaml`` gives each deployment.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from functools import partial
from pathlib import Path

from tasks.config import ConfigError, read_config
from tasks.fleets import FleetUnreadableError
from tasks.watch import listen, source
from tasks.watch.tell import home, tell


def watch(config: str, is_over: threading.Event) -> None:
    """Listen until ``is_over``.

    Raises:
        ConfigError, FleetUnreadableError: the configuration is wrong, or the fleet cannot be read at all.
    """
    # It asks no model what it needs, and the catalogue may be on a volume that is the worker's alone.
    settings = read_config(config, has_needs=False)
    kind = settings.fleet.kind
    listen(
        source(settings),
        partial(tell, fleet=kind),
        told_file(kind),
        quiet_s=settings.limits.interval_s,
        is_over=is_over,
    )


def told_file(kind: str) -> Path:
    """Where it keeps what it told of a fleet of this kind; the chart's liveness probe looks beside it."""
    return home() / f"triton-placement-told-{kind}.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.watch", description=__doc__)
    parser.add_argument("config", help="the configuration file")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        watch(parser.parse_args().config, threading.Event())
    except (ConfigError, FleetUnreadableError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

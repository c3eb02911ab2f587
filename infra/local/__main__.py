"""``python -m infra.local up | down | status``: the fleet of real servers on this machine."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from infra.local.checks import MachineError
from infra.local.fleet import FleetError, Say, down, up
from infra.local.leftovers import LeftoverError
from infra.local.models import RepositoryError
from infra.local.prefect import PrefectError
from infra.local.status import show
from tasks.config import ConfigError, read_config
from tasks.fleets import FleetUnreadableError

CONFIG = Path("infra/local/placement.yaml")
EXPECTED = (
    MachineError,
    FleetError,
    LeftoverError,
    RepositoryError,
    PrefectError,
    ConfigError,
    FleetUnreadableError,
    OSError,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--config", type=Path, default=CONFIG, help=f"the fleet's configuration (default {CONFIG})")
    parser.add_argument("--no-prefect", action="store_true", help="up: without Prefect, so nothing is scheduled")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    try:
        _run(arguments, console)
    except EXPECTED as error:
        Console(stderr=True, highlight=False).print(
            f"[red]{type(error).__name__}[/]: {escape(str(error))}", soft_wrap=True
        )
        sys.exit(1)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    config = read_config(arguments.config)
    say = _clocked(console)
    if arguments.command == "up":
        live = up(config, arguments.config, say, not arguments.no_prefect)
        show(live, console)
    elif arguments.command == "down":
        down(config.local_state, say)
        say("nothing is left running")
    else:
        from tasks.fleets.local import LocalFleet

        show(LocalFleet(config), console)


def _clocked(console: Console) -> Say:
    start = time.monotonic()
    return lambda text: console.print(f"[dim]{time.monotonic() - start:5.1f} s[/]  {escape(text)}")


if __name__ == "__main__":
    main()

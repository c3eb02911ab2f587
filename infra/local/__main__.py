"""``python -m infra.local up | down | status``: the fleet of real servers on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from infra.local.fleet import down, up
from infra.local.status import show
from infra.local.terminal import clocked, plain_errors
from tasks.config import read_config

CONFIG = Path("infra/local/placement.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--config", type=Path, default=CONFIG, help=f"the fleet's configuration (default {CONFIG})")
    parser.add_argument("--no-prefect", action="store_true", help="up: without Prefect, so nothing is scheduled")
    arguments = parser.parse_args()
    with plain_errors():
        _run(arguments, Console(highlight=False))


def _run(arguments: argparse.Namespace, console: Console) -> None:
    config = read_config(arguments.config, has_needs=False)
    say = clocked(console)
    if arguments.command == "up":
        live = up(config, arguments.config, say, not arguments.no_prefect)
        show(live, console)
    elif arguments.command == "down":
        down(config.local_state, say)
        say("nothing is left running")
    else:
        from tasks.fleets.local import LocalFleet

        show(LocalFleet(config), console)


if __name__ == "__main__":
    main()

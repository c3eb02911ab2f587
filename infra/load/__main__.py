"""``python -m infra.load``: send a scenario or a trace through a gateway, and report."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from rich.console import Console

from infra.load.open_loop import Options, run
from infra.load.profile import Profile
from infra.load.queue_time import measure
from infra.load.report import Report
from infra.load.scenario import ScenarioError, read_scenario, schema
from infra.load.show import progress, show
from infra.load.trace import profile as trace_profile
from infra.load.trace import read_trace


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m infra.load", description=__doc__.partition(": ")[2] if __doc__ else "")
    parser.add_argument("--gateway", help="where requests go: http://host:port")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scenario", type=Path, help="YAML: phases with rates a model (infra/load/scenarios/)")
    what.add_argument("--trace", type=Path, help="Parquet: timestamp, model, requests (infra/load/traces/)")
    what.add_argument("--schema", action="store_true", help="print the JSON schema of a scenario")
    parser.add_argument(
        "--models", default="", metavar="A,B",
        help="of a trace: who plays its series, the busiest first; or A=SERIES,B=SERIES (default: series are models)",
    )  # fmt: skip
    parser.add_argument("--speed", type=_positive, default=1.0, help="time runs so many times as fast; rates stay")
    parser.add_argument("--scale", type=_positive, default=1.0, help="rates are so many times as high")
    parser.add_argument("--timeout", type=_positive, default=30.0, metavar="S", help="a request fails after this long")
    parser.add_argument("--prometheus", metavar="URL", help="adds queue times from Triton's counters")
    parser.add_argument("--out", type=Path, default=Path(".local/load"), help="folder of the report (%(default)s)")
    arguments = parser.parse_args()
    if not arguments.schema and not (arguments.gateway or "").startswith(("http://", "https://")):
        parser.error("--gateway needs a URL such as http://127.0.0.1:8000")
    return arguments


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _profile(arguments: argparse.Namespace) -> Profile:
    if arguments.scenario:
        return read_scenario(arguments.scenario).profile(arguments.speed, arguments.scale)
    return trace_profile(read_trace(arguments.trace), arguments.models, arguments.speed, arguments.scale)


async def _run(profile: Profile, arguments: argparse.Namespace, console: Console) -> Report:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with progress(console, profile.duration_s) as on_progress:
        options = Options(arguments.timeout, lambda mark: console.print(f"mark: {mark}"), on_progress, stop)
        report = await run(profile, arguments.gateway, options)
    return measure(report, arguments.prometheus) if arguments.prometheus else report


def main() -> None:
    arguments = _arguments()
    if arguments.schema:
        print(schema(), end="")
        return
    try:
        profile = _profile(arguments)
    except ScenarioError as error:
        sys.exit(str(error))
    console = Console()
    report = asyncio.run(_run(profile, arguments, console))
    show(report, console)
    console.print(f"report: {report.write(arguments.out)}", highlight=False)


if __name__ == "__main__":
    main()

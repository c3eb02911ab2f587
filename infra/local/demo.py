"""``python -m infra.local.demo``: the fleet up, a scenario through its gateway, a replica killed, and what came of it.

The fleet keeps running afterwards, also after Ctrl-C: ``make down`` stops it.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from infra.load import Background, Mark, Progress, Report, Scenario, read_scenario, start
from infra.load.queue_time import measure
from infra.load.show import progress
from infra.local.__main__ import CONFIG
from infra.local.fleet import FleetError, Say, up
from infra.local.samples import Kill, Watch, look
from infra.local.story import Story, tell
from infra.local.terminal import clocked, plain_errors
from infra.local.ticks import COALESCED, EndedTick, Ticks
from tasks.config import read_config
from tasks.fleets.local import LocalFleet
from tasks.fleets.supervisor import Supervisor

SCENARIO = Path("infra/load/scenarios/demo.yaml")
PLACED_S = 180.0
"""A tick places what its budget allows, and comes when the last one is over: a busy machine needs three of them."""
LOOK_S = 0.5
KEEPS_RUNNING = "the fleet and its schedule keep running: make status shows them, make down stops them"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.demo", description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG, help=f"the fleet's configuration (default {CONFIG})")
    parser.add_argument("--scenario", type=Path, default=SCENARIO, help=f"the load (default {SCENARIO})")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    with plain_errors():
        try:
            _demo(arguments.config, arguments.scenario, console)
        except KeyboardInterrupt:
            console.print("stopped")
        console.print(f"\n{KEEPS_RUNNING}")


def _demo(config_path: Path, scenario_path: Path, console: Console) -> None:
    config, scenario = read_config(config_path), read_scenario(scenario_path)
    say = clocked(console)
    live = up(config, config_path, say)
    ticks = Ticks(live.state, time.time())
    await_placement(live, ticks, say)
    with Watch(live) as watch:
        run = _Run(live, ticks, scenario, console)
        report = measure(run.drive(), live.prometheus_url)
    folder = report.write(config.local_state / "load")
    tell(Story(report, watch.samples, run.kill, run.start_by_phase), live.state, folder, console)


def await_placement(live: LocalFleet, ticks: Ticks, say: Say) -> None:
    """Return once every model that may not be at zero copies is served; ask for ticks until then.

    Raises:
        FleetError: it takes too long.
        PrefectError: no tick can be asked for.
    """
    deadline, asked, last = time.monotonic() + PLACED_S, "", "no tick ended"
    while missing := [m.name for m in live.models if m.min_copies > 0 and not look(live).serving[m.name]]:
        if not asked:
            say(f"no copy yet of {', '.join(missing)}: a tick is asked for")
            asked = ticks.ask()
        for tick in ticks.new():
            asked = "" if tick.id == asked else asked
            last = str(tick)
            if tick.state != COALESCED:
                say(in_lines(tick))
        if time.monotonic() > deadline:
            where = f"see {live.state.url('prefect')}/runs and {live.state.folder / 'logs'}"
            raise FleetError(f"{', '.join(missing)}: still not served after {PLACED_S:.0f} s; {where}; {last}")
        time.sleep(LOOK_S)
    say("every model that should be served is served")


@dataclass(slots=True)
class _Run:
    """The scenario under way."""

    live: LocalFleet
    ticks: Ticks
    scenario: Scenario
    console: Console
    kill: Kill | None = None
    start_by_phase: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0

    def drive(self) -> Report:
        """Send the scenario; Ctrl-C ends it early, with the report of what was sent until then."""
        self.console.print("sending. Ctrl-C ends it early")
        profile = self.scenario.profile()
        with (
            progress(self.console, profile.duration_s) as show,
            start(profile, self.live.gateway_url, on_mark=self._mark, on_progress=self._progress(show)) as load,
        ):
            try:
                self._watch(load)
            except KeyboardInterrupt:
                self.console.print("ending early, waiting for the requests in flight")
                return load.stop()
            return load.wait()

    def _progress(self, show: Callable[[Progress], None]) -> Callable[[Progress], None]:
        def on_progress(now: Progress) -> None:
            self.elapsed_s = now.elapsed_s
            show(now)

        return on_progress

    def _watch(self, load: Background) -> None:
        """Tell phases as they begin and ticks as they end."""
        starts = _starts(self.scenario)
        while load.is_running:
            for name, at_s in list(starts.items()):
                if at_s <= self.elapsed_s:
                    self.start_by_phase[name] = starts.pop(name)
                    self.console.print(f"[bold]{name}[/]")
            for tick in self.ticks.new():
                if tick.state != COALESCED:
                    self.console.print(in_lines(tick), markup=False, soft_wrap=True)
            time.sleep(LOOK_S)

    def _mark(self, mark: Mark) -> None:
        if mark.verb == "kill":
            self.kill = kill(self.live, mark.subject)
            self.console.print(
                f"killed {self.kill.replica} with SIGKILL; it served {', '.join(self.kill.held)}", style="red"
            )


def in_lines(tick: EndedTick) -> str:
    """Its one-line summary, a line for each part: what was done, each model that changes, what is held, the times."""
    return f"tick {tick}".replace(" · ", "\n       ")


def _starts(scenario: Scenario) -> dict[str, float]:
    """Seconds at which each phase begins, by its name."""
    starts, at_s = {}, 0.0
    for number, phase in enumerate(scenario.phases, 1):
        starts[phase.name or f"phase {number}"] = at_s
        at_s += phase.duration_s
    return starts


def kill(live: LocalFleet, name: str) -> Kill:
    """End the Triton in this slot with SIGKILL; if none serves there, the one that serves the most models.

    Raises:
        FleetError: no replica serves anything.
    """
    fleet = look(live).fleet
    held_by_replica = {
        replica.name: tuple(copy.model for copy in fleet.copies_in(replica.name) if copy.is_serving)
        for replica in fleet.replicas
    }
    if not held_by_replica.get(name):
        name = max(held_by_replica, key=lambda other: len(held_by_replica[other]), default="")
    if not held_by_replica.get(name):
        raise FleetError("no replica serves a model: none is killed")
    pid = Supervisor(live.state.supervisor_socket).programs()[name]["pid"]
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    return Kill(name, at, held_by_replica[name])


if __name__ == "__main__":
    main()

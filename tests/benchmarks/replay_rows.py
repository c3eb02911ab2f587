"""Finished runs in a file, one JSON object a line: a comparison that is stopped goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, fields
from pathlib import Path

from tasks.simulate.fleet import Counters
from tasks.simulate.run import Outcome, Run
from tasks.simulate.scenario import Scenario
from tasks.simulate.score import Minute

Key = tuple[str, float, float, str]
"""The scenario's name, start (s) and duration (s), and the policy with its setting."""


class Rows:
    """The runs that a file holds; without a file, none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept: dict[Key, Outcome] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            row = json.loads(line)
            key = (row.pop("scenario"), row.pop("start"), row.pop("duration_s"), row["policy"])
            row["counters"] = Counters(**row["counters"])
            row["minutes"] = tuple(Minute(*minute) for minute in row["minutes"])
            self._kept[key] = Outcome(**row)

    def get(self, scenario: Scenario, policy: str) -> Outcome | None:
        return self._kept.get((scenario.name, scenario.start, scenario.duration_s, policy))

    def add(self, scenario: Scenario, run: Run) -> None:
        """Write it down at once."""
        if self._path is None:
            return
        row = {"scenario": scenario.name, "start": scenario.start, "duration_s": scenario.duration_s}
        row |= {f.name: getattr(run, f.name) for f in fields(Outcome)}
        row |= {"counters": asdict(run.counters), "minutes": [astuple(minute) for minute in run.minutes]}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

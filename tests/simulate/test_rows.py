"""What is kept of a run in a file is what it was."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from tasks.simulate.policies.per_model import PerModel
from tasks.simulate.run import Outcome, simulate
from tests.benchmarks.replay_rows import Rows
from tests.simulate.small import flat, model, scenario


def test_a_run_comes_back_from_its_file_and_only_for_its_scenario(tmp_path: Path) -> None:
    made = scenario((model("a"),), flat(2.0), duration_s=600.0)
    done = simulate(made, PerModel(0.5, "per model at 0.5"))
    Rows(tmp_path / "rows").add(made, done)
    again = Rows(tmp_path / "rows")
    assert again.get(made, done.policy) == Outcome(**{f.name: getattr(done, f.name) for f in fields(Outcome)})
    assert again.get(made, "per model at 0.6") is None
    assert again.get(scenario((model("a"),), flat(2.0), duration_s=660.0), done.policy) is None
    assert Rows(None).get(made, done.policy) is None

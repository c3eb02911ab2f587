"""An open-loop load generator for Triton behind a gateway, with an honest report.

``python -m infra.load --gateway URL --scenario FILE`` sends a scenario; ``--trace FILE`` plays a trace. From code::

    report = await run(read_scenario(path).profile(), gateway)                  # in this process
    with start(read_scenario(path).profile(), gateway, on_mark=act) as load:    # in a process of its own
        report = load.stop()                                                    # or load.wait()
"""

from infra.load.background import Background, start
from infra.load.client import Outcome
from infra.load.open_loop import Options, Progress, run
from infra.load.profile import Ask, Mark, Profile, Segment
from infra.load.report import ModelReport, QueueTime, Report
from infra.load.scenario import Scenario, ScenarioError, read_scenario
from infra.load.trace import profile as trace_profile
from infra.load.trace import read_trace

__all__ = [
    "Ask",
    "Background",
    "Mark",
    "ModelReport",
    "Options",
    "Outcome",
    "Profile",
    "Progress",
    "QueueTime",
    "Report",
    "Scenario",
    "ScenarioError",
    "Segment",
    "read_scenario",
    "read_trace",
    "run",
    "start",
    "trace_profile",
]

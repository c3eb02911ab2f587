"""A scenario: phases of load in a YAML file, checked in full before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.load.profile import Ask, Mark, Profile, Segment, Spacing
from tasks.config import NAME

Name = Annotated[str, Field(pattern=NAME)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ScenarioError(Exception):
    """A scenario or a trace is wrong; the text names the file, the place, and what is allowed there."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Phase(Part):
    """A stretch of the run; what it asks for and its marks happen as it starts."""

    name: str = ""
    """What is shown while it runs."""
    duration_s: float = Field(gt=0, allow_inf_nan=False)
    """Seconds."""
    rates: dict[Name, Rate] = Field(default_factory=dict)
    """Requests a second by model. A model that is left out keeps its rate; before its first mention it has none."""
    ramp: bool = False
    """Rates go in a straight line from those of the phase before to these, instead of at once."""
    ask: dict[Name, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Single requests by model, all at once at the start of the phase."""
    marks: dict[str, str] = Field(default_factory=dict)
    """What the driver of the run does at the start of the phase, as verb and subject: ``kill: small-0``."""


class Scenario(Part):
    """A load to be driven through a gateway."""

    name: str
    """Its name in the report."""
    spacing: Spacing = "poisson"
    """Arrivals at random (poisson), as of many independent users, or evenly spaced."""
    seed: int = Field(0, ge=0)
    """The same seed gives the same arrivals."""
    phases: list[Phase] = Field(min_length=1)
    """One after the other."""

    def profile(self, speed: float = 1.0, scale: float = 1.0) -> Profile:
        """Phases as segments. Time runs ``speed`` times as fast, rates are ``scale`` times as high."""
        start_s, segments, asks, marks = 0.0, [], [], []
        rates: dict[str, float] = {}
        for phase in self.phases:
            end_s = start_s + phase.duration_s / speed
            wanted = rates | {model: rate * scale for model, rate in phase.rates.items()}
            for model, rate in wanted.items():
                first = rates.get(model, 0.0) if phase.ramp else rate
                segments.append(Segment(model, start_s, end_s, first, rate))
            asks += [Ask(model, start_s, count) for model, count in phase.ask.items()]
            marks += [Mark(start_s, verb, subject) for verb, subject in phase.marks.items()]
            start_s, rates = end_s, wanted
        return Profile(self.name, start_s, tuple(segments), tuple(asks), tuple(marks), self.spacing, self.seed)


def read_scenario(path: Path | str) -> Scenario:
    """Read and check a scenario file.

    Raises:
        ScenarioError: one line for each place that is wrong, with what is allowed there.
    """
    try:
        return Scenario.model_validate(yaml.safe_load(Path(path).read_text()) or {})
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        places = [
            f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}{_allowed(e['loc'], e['type'])}"
            for e in error.errors()
        ]
        raise ScenarioError(f"{path}: {len(places)} wrong:\n" + "\n".join(places)) from error


def _allowed(location: tuple[int | str, ...], kind: str) -> str:
    if kind != "extra_forbidden":
        return ""
    part: type[BaseModel] = Phase if location[0] == "phases" else Scenario
    return f"; allowed: {', '.join(part.model_fields)}"


def schema() -> str:
    """The JSON schema of a scenario, for editors."""
    return json.dumps(Scenario.model_json_schema(), indent=2) + "\n"

"""What the local fleet's commands share on the terminal: a clock before each line, and one line for what went wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from infra.load import ScenarioError
from infra.load.background import LoadDiedError
from infra.local.checks import MachineError
from infra.local.fleet import FleetError, Say
from infra.local.leftovers import LeftoverError
from infra.local.models import RepositoryError
from infra.local.prefect_api import PrefectError
from tasks.config import ConfigError
from tasks.fleets import FleetUnreadableError

EXPECTED = (
    MachineError,
    FleetError,
    LeftoverError,
    RepositoryError,
    PrefectError,
    ConfigError,
    ScenarioError,
    LoadDiedError,
    FleetUnreadableError,
    OSError,
)
"""Their text says what is wrong and what to do: a traceback would hide it."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the command with the error's own text."""
    try:
        yield
    except EXPECTED as error:
        Console(stderr=True, highlight=False).print(
            f"[red]{type(error).__name__}[/]: {escape(str(error))}", soft_wrap=True
        )
        sys.exit(1)


def clocked(console: Console) -> Say:
    """Print a line with the seconds since now before it."""
    start = time.monotonic()
    return lambda text: console.print(f"[dim]{time.monotonic() - start:5.1f} s[/]  {escape(text)}", soft_wrap=True)

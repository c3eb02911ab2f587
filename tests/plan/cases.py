"""Plans that the checker judges, and what it judges them by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tasks.decision import Placement, Plan
from tasks.plan.check import check
from tasks.world import Fleet, Limits, Observation, Pool
from tests.plan import POOL, fleet, placement, sizings, step
from tests.worlds import NOW


@dataclass(frozen=True)
class Case:
    """A plan and what it is judged by; the least it takes to be well formed and good but for what the test is about."""

    steps: tuple[str, ...]
    copies: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    demand: dict[str, float | None] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    pool: Pool = POOL
    budget: int = 4

    @property
    def fleet(self) -> Fleet:
        return fleet(*self.copies, pool=self.pool, **self.states)

    @property
    def placement(self) -> Placement:
        return placement(*self.wanted, leaving=self.leaving)

    def broken(self) -> tuple[str, ...]:
        """What the checker says, whatever order the steps are listed in."""
        steps = tuple(map(step, self.steps))
        observation, known = Observation(NOW, self.fleet), sizings(**self.demand)
        found, again = (
            check(Plan(listed), observation, self.placement, known, Limits(budget=self.budget))
            for listed in (steps, steps[::-1])
        )
        assert found == again
        return found


MOVE = Case(
    (
        *("1 load a small-1", "2 route a small-1 < 1"),
        *("3 unroute a small-0 < 2", "4 drain a small-0 < 3", "5 unload a small-0 < 4"),
    ),
    copies=("a small-0 serving",),
    wanted=("a small-1",),
)
RELOAD = Case(
    ("1 unroute a small-0", "2 unload a small-0 < 1", "3 load a small-0 < 2", "4 route a small-0 < 3"),
    copies=("a small-0 serving failing",),
    wanted=("a small-0",),
)
EMPTY = Case(("1 scale_down small-2",), leaving=("small-2",))
SWAP = Case(  # 500 MB: a and c are there, b fits once c is gone
    ("1 unroute c small-0", "2 drain c small-0 < 1", "3 unload c small-0 < 2", "4 load b small-0 < 3"),
    copies=("a small-0 serving", "c small-0 serving", "c small-1 serving"),
    wanted=("a small-0", "b small-0", "c small-1"),
)


def but(case: Case, *steps: str, **changes: Any) -> Case:
    """The case with these steps in place of those of the same number, more where there is none."""
    by_number = {text.split()[0]: text for text in (*case.steps, *steps)}
    return replace(case, steps=tuple(by_number.values()), **changes)

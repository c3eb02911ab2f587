"""What a placement changes, and why."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from tasks.decision import Reason

CopyKey = tuple[int, int]
"""Model and replica."""
Move = tuple[int, int, int]
"""Model, the replica that it leaves, the one that it goes to; the first replica is -1 where one copy more comes."""


@dataclass(slots=True)
class Changes:
    """Why each copy is placed or not, as far as it is not just kept."""

    placed: dict[CopyKey, Reason] = field(default_factory=dict)
    displaced: dict[CopyKey, Reason] = field(default_factory=dict)
    urgent: set[CopyKey] = field(default_factory=set)
    """Placed over a replica's target, so as not to wait for a new one: what makes room for them leaves, not they."""
    refused: dict[int, Reason] = field(default_factory=dict)
    gone: dict[int, Reason] = field(default_factory=dict)
    """Replicas that should go."""
    weighed: dict[int, Reason] = field(default_factory=dict)
    """Models whose shares of requests change."""
    searches: int = 0
    """For exchanges, so far."""

    def weigh(self, models: Iterable[int], why: str) -> None:
        """Shares of these models' requests were shifted."""
        self.weighed.update(dict.fromkeys(models, Reason("weighed", why)))

    def move(self, present: Set[CopyKey], moves: Iterable[Move], why: Reason) -> None:
        """The copies have moved, in this order: one may do so more than once. ``present``: those that there are now."""
        for model, source, to in moves:
            was = self.placed.pop((model, source), None)
            if (model, source) in present:
                self.displaced[model, source] = why
            if (model, to) in present:
                self.displaced.pop((model, to), None)
            elif source < 0:
                self.placed[model, to] = Reason("placed", f"one more, all of them smaller: {why.text}")
            else:
                self.placed[model, to] = was or why

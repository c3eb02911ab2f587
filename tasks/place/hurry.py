"""Models that are served badly until a new replica has started get copies at once, into the headroom of the replicas
that there are: that is what it is for."""

from __future__ import annotations

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes
from tasks.place.problem import Ints
from tasks.place.seek import find, find_urgent, why_here
from tasks.place.table import Table

ENOUGH = 0.5
"""Share of the copies that a model should have. With fewer each gets more than twice what it can serve within the
objective, its queue grows all the time, and its requests fail before long."""


def hurry(table: Table, changes: Changes) -> None:
    """Copies up to that share, as many as the tick may load: a first one of each model, then the others, as copies are
    filled in later; what is worth most, then what is short most, first."""
    wants, names = table.problem.wants, table.problem.spots.names
    short = _short(table).tolist() if table.takes.any() else []
    for most, model in [(1.0, model) for model in short] + [(np.inf, model) for model in short]:
        there, wanted = table.count(model), int(wants.copies[model])
        while table.count(model) < min(most, ENOUGH * wanted) and len(changes.placed) < table.problem.loads:
            if (spot := find(table, model)) is not None:
                changes.placed[model, spot] = why_here(table, model, spot)
            elif (spot := find_urgent(table, model)) is not None:
                why = f"at once, into the headroom of {names[spot]}: {there} of {wanted} copies are there"
                changes.placed[model, spot] = Reason("placed", why)
                changes.urgent.add((model, spot))
            else:
                break
            table.add(model, spot)


def _short(table: Table) -> Ints:
    """Models that ask and have less than that share."""
    wants = table.problem.wants
    have = table.counts / np.maximum(wants.copies, 1)
    short = np.flatnonzero((wants.demand_rps > 0) & (wants.copies > 0) & (have < ENOUGH))
    return short[np.lexsort((short, have[short], -wants.priority[short]))]

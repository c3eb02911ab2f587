"""What a table was before a change, so that the change can be taken back: to the last bit, each list in its order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.place.problem import Floats

if TYPE_CHECKING:
    from tasks.place.table import Table


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """One copy comes or goes, or the weights of a model's copies change."""

    model: int
    replica: int
    """-1: only weights change."""
    is_added: bool
    at: tuple[int, int]
    """Where the copy that goes is in the lists of its model and of its replica."""
    weights: Floats | None
    touched: list[int]
    """Replicas whose compute changes."""
    free_compute: Floats
    """(len(touched),)"""
    free_bytes: float
    going_bytes: float

    @staticmethod
    def add(table: Table, model: int, replica: int) -> Before:
        return _before(table, model, replica, True, (-1, -1))

    @staticmethod
    def remove(table: Table, model: int, replica: int) -> Before:
        at = table.replicas_of[model].index(replica), table.models_in[replica].index(model)
        return _before(table, model, replica, False, at)

    @staticmethod
    def weigh(table: Table, model: int) -> Before:
        return _before(table, model, -1, False, (-1, -1))

    def restore(self, table: Table) -> None:
        """The table is as it was, if nothing was done since that is not undone."""
        model, replica = self.model, self.replica
        table.free_compute[self.touched] = self.free_compute
        if self.weights is None:
            table.weights.pop(model, None)
        else:
            table.weights[model] = self.weights
        if replica < 0:
            return
        if self.is_added:
            table.replicas_of[model].pop()
            table.models_in[replica].pop()
        else:
            table.replicas_of[model].insert(self.at[0], replica)
            table.models_in[replica].insert(self.at[1], model)
        table.counts[model] -= 1 if self.is_added else -1
        if (model, replica) in table.present:
            (table.going_of[model].add if self.is_added else table.going_of[model].remove)(replica)
        table.free_bytes[replica], table.going_bytes[replica] = self.free_bytes, self.going_bytes


def _before(table: Table, model: int, replica: int, is_added: bool, at: tuple[int, int]) -> Before:
    touched = [*table.replicas_of[model], replica] if replica >= 0 else [*table.replicas_of[model]]
    free = table.free_compute[touched]
    memory = table.free_bytes.item(replica), table.going_bytes.item(replica)
    return Before(model, replica, is_added, at, table.weights.get(model), touched, free, *memory)

"""plan: the ordered steps from the fleet as it is to the placement, so that capacity never dips."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.decision import Hold, Placement, Plan, Reason, Sizing
from tasks.plan import holds
from tasks.plan.changes import coming, going
from tasks.plan.check import check
from tasks.plan.draft import Draft
from tasks.plan.steps import change_steps, scale_down, scale_up
from tasks.plan.weigh import weigh_steps
from tasks.world import Limits, Observation

__all__ = ["plan"]

HELD = ("demand_unknown", "stabilising", "window_unknown", "no_margin", "max_copies")
"""Reasons of a sizing that leave a model as it is, or with less than it needs."""


def plan(observation: Observation, placement: Placement, sizings: Sequence[Sizing], limits: Limits) -> Plan:
    """A new copy is loaded, ready and routed before an old one loses its traffic; an unload waits for its drain; a
    replica is emptied before it goes. At most ``limits.budget`` loads and unloads: models that nobody serves first.

    An independent checker replays the plan; one that could break a rail is not a plan: it has no step, and says why.
    """
    fleet = observation.fleet
    changes = [*coming(observation, placement, sizings), *going(observation, placement)]
    draft = Draft(fleet, placement, sizings, limits.budget, changes)
    refused = {change: reason for change in changes if (reason := draft.take(change)) is not None}
    # what was refused may have been taken up since, as what another change needs
    refused = {change: reason for change, reason in refused.items() if change.key not in draft.chosen.change_by_key}
    held = {sizing.model for sizing in sizings if sizing.is_held}
    for change, reason in refused.items():
        # else what came in its stead would look like one copy more next time
        if reason.code == "budget" and change.model in held and change.unrouted.kinds and not change.is_coming:
            draft.take(change.unrouted)
    ups, not_ours = scale_up(fleet, placement)
    moves, last = change_steps(draft.chosen, len(ups))
    weighs, not_yet = weigh_steps(fleet, placement, sizings, moves, len(ups) + len(moves))
    downs, not_empty = scale_down(observation, placement, last, len(ups) + len(moves) + len(weighs))
    left = (
        *(Hold(f"model:{sizing.model}", sizing.reason) for sizing in sizings if sizing.reason.code in HELD),
        *placement.holds,
        *holds.refused(refused),
        *holds.waiting(fleet, placement),
        *not_ours,
        *not_yet,
        *not_empty,
    )
    proposed = Plan((*ups, *moves, *weighs, *downs), left)
    if broken := check(proposed, observation, placement, sizings, limits):
        return Plan(holds=(*left, Hold("plan", Reason("unplanned", "; ".join(broken[:3])))))
    return proposed

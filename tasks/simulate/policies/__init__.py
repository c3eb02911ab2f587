"""The policies that are compared, one file each; a peer comes with the settings that are tried for it."""

from __future__ import annotations

from dataclasses import replace

from tasks.simulate.policies.dynamo import Dynamo
from tasks.simulate.policies.everywhere import Everywhere
from tasks.simulate.policies.modelmesh import ModelMesh
from tasks.simulate.policies.ours import Ours, foresight, last_seen
from tasks.simulate.policies.per_model import PerModel
from tasks.simulate.policies.sagemaker import SageMaker
from tasks.simulate.run import Policy
from tasks.simulate.scenario import Scenario

__all__ = ["own", "peers"]


def peers() -> list[list[Policy]]:
    """A list of settings for each peer, all new: the best of each list on a scenario is what the peer is worth.

    They reach from one at which a peer fails too often to one at which it pays for more than it needs, as far as there
    are such, the boldest first: nobody is judged by a setting that was merely a bad one.
    """
    return [
        [Everywhere(t, name=f"every model everywhere, HPA at {t:g}") for t in (0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2)],
        [Everywhere(t, True, f"every model everywhere, queue at {t:g}") for t in (0.3, 0.1, 0.06, 0.03)],
        [PerModel(t, f"one Deployment a model, HPA at {t:g}") for t in (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)],
        [
            ModelMesh(factor, rpm, f"ModelMesh, {factor:g} x peak, {rpm:g} rpm")
            for factor in (0.75, 1.0, 1.25, 1.75, 2.5)
            for rpm in (500.0, 250.0, 125.0, 60.0)
        ],
        [SageMaker(t, f"SageMaker's target tracking at {t:g}") for t in (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.1)],
        [Dynamo(sla, f"Dynamo's planner a model, at {sla:g}") for sla in (1.0, 0.85, 0.7, 0.5, 0.3, 0.15)],
    ]


def own(
    scenario: Scenario, extras: tuple[float, ...] = (0.0,), quantiles: tuple[float, ...] = ()
) -> list[list[Policy]]:
    """Our decisions without forecasts, with them, and with perfect foresight, as lists of settings.

    Without forecasts demand stays as it was last seen, and these shares more; with them it is at the scenario's
    quantile, or at these.
    """
    limits = scenario.limits
    return [
        [
            Ours(limits, last_seen(more), f"ours, reactive + {more:.0%}" if more else "ours, reactive")
            for more in extras
        ],
        [Ours(replace(limits, quantile=q), name=f"ours, quantile {q:g}") for q in quantiles] or [Ours(limits)],
        [Ours(limits, foresight(scenario.demand), "ours, perfect foresight")],
    ]

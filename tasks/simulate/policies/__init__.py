"""The policies that are compared, one file each; a peer comes with the settings that are tried for it."""

from __future__ import annotations

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
    are such: nobody is judged by a setting that was merely a bad one.
    """
    return [
        [Everywhere(t, name=f"every model everywhere, HPA at {t:g}") for t in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)],
        [Everywhere(t, True, f"every model everywhere, queue at {t:g}") for t in (0.03, 0.1, 0.3)],
        [PerModel(t, f"one Deployment a model, HPA at {t:g}") for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)],
        [
            ModelMesh(factor, rpm, f"ModelMesh, {factor:g} x peak, {rpm:g} rpm")
            for factor in (1.25, 1.75, 2.5)
            for rpm in (60.0, 125.0, 250.0, 500.0)
        ],
        [SageMaker(safety, f"SageMaker's target tracking at {safety:g}") for safety in (0.2, 0.3, 0.4, 0.5, 0.7)],
        [Dynamo(sla, f"Dynamo's planner a model, at {sla:g}") for sla in (0.3, 0.5, 0.7, 0.85, 1.0)],
    ]


def own(scenario: Scenario, extras: tuple[float, ...] = (0.0,)) -> list[list[Policy]]:
    """Our decisions without forecasts, with them, and with perfect foresight, as lists of settings.

    Without forecasts demand stays as it was last seen, and these shares more, tuned as the peers are.
    """
    return [
        [
            Ours(scenario.limits, last_seen(extra), f"ours, reactive + {extra:.0%}" if extra else "ours, reactive only")
            for extra in extras
        ],
        [Ours(scenario.limits)],
        [Ours(scenario.limits, foresight(scenario.demand), "ours, perfect foresight")],
    ]

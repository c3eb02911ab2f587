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
    """A list of settings for each peer, all new: the best of each list on a scenario is what the peer is worth."""
    return [
        [Everywhere(target) for target in (0.3, 0.4, 0.5, 0.6)],
        [Everywhere(target, True, "every model everywhere, HPA on queue time") for target in (0.1, 0.2)],
        [PerModel(target) for target in (0.3, 0.4, 0.5)],
        [ModelMesh(factor, rpm) for factor in (1.25, 1.75) for rpm in (500.0, 1000.0, 2000.0)],
        [SageMaker(safety) for safety in (0.4, 0.5, 0.7)],
        [Dynamo()],
    ]


def own(scenario: Scenario) -> list[Policy]:
    """Our decisions without forecasts, with them, and with perfect foresight."""
    return [
        Ours(scenario.limits, last_seen, "ours, reactive only"),
        Ours(scenario.limits),
        Ours(scenario.limits, foresight(scenario.demand), "ours, perfect foresight"),
    ]

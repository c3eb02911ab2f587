"""What a subset saves, and what a kill cost, from plain looks at a fleet."""

from __future__ import annotations

import pytest

from infra.local.samples import Kill, Sample, alone, replica_of_all_bytes, savings, served_again_s
from tasks.world import Copy, CopyState, Fleet, Model, Need, Objective, Pool, Replica

MB = 10**6
POOL = Pool("small", "small", 500 * MB, max_replicas=4, replicas=2, headroom=0.1)
MODELS = tuple(
    Model(name, {"small": Need(mb * MB, 50)}, Objective(50.0)) for name, mb in (("a", 100), ("b", 200), ("c", 150))
)


def sample(at: float, *copies: tuple[str, int], lost: tuple[tuple[str, int], ...] = ()) -> Sample:
    """Two replicas; ``copies`` are served by them, ``lost`` were."""
    there = [Copy(m, f"small-{r}", CopyState.READY, is_routed=True) for m, r in copies]
    gone = [Copy(m, f"small-{r}", CopyState.ABSENT, is_routed=True) for m, r in lost]
    replicas = tuple(Replica(f"small-{i}", "small", "small", 500 * MB, 1.0) for i in range(2))
    return Sample(at, Fleet(MODELS, (POOL,), replicas, (*there, *gone)))


def test_a_replica_of_all_models_holds_them_and_the_headroom() -> None:
    assert replica_of_all_bytes(sample(0).fleet) == 500 * MB, "(100 + 200 + 150) / 0.9"


def test_savings() -> None:
    """At first ``a`` twice, ``b`` and ``c`` once: 4 copies; copied pods: 2 replicas of 500 MB and 6 copies. Then ``a``
    once: 3 copies; 1 replica and 3 copies. The two replicas that there are have 1,000 MB all the time."""
    saved = savings([sample(0, ("a", 0), ("a", 1), ("b", 0), ("c", 1)), sample(1, ("a", 0), ("b", 0), ("c", 1))])
    assert (saved.copies, saved.peak_copies) == (3.5, 4)
    assert (saved.copies_alike, saved.peak_copies_alike) == (4.5, 6)
    assert (saved.replicas, saved.replicas_alike) == (2.0, 1.5)
    assert (saved.memory_bytes, saved.memory_alike_bytes) == (1000 * MB, 750 * MB)
    assert saved.share == pytest.approx(1 - 1000 / 750), "a fleet this small would be better off copied"
    assert saved.in_replicas == pytest.approx(-0.5)


KILL = Kill("small-0", 10.0, ("a", "b"))
BEFORE = sample(9.8, ("a", 0), ("b", 0), ("b", 1))


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        ((), None),
        # seen in the very second of the kill: not believed
        ((sample(10.3, ("a", 0), ("b", 0)), sample(12, ("b", 1), lost=(("a", 0),))), None),
        ((sample(12, ("b", 1), lost=(("a", 0),)), sample(14, ("b", 1), ("a", 1))), 4.0),
    ],
)
def test_served_again_once_each_model_that_it_held_has_a_copy(after: tuple[Sample, ...], seconds: float | None) -> None:
    assert served_again_s(KILL, (BEFORE, *after)) == seconds


def test_the_models_that_only_the_killed_replica_served() -> None:
    assert alone(KILL, (BEFORE,)) == ("a",)
    assert alone(KILL, ()) == ("a", "b"), "nobody looked before: the worst is assumed"

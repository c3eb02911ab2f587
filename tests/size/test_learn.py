"""Service times and footprints learned from one window after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tasks.size.learn import kept_bytes, learn, learn_footprints, reckoned, refined
from tasks.world import CopyState, Fleet, Learned, LearnedFootprint, Model, Need, Objective, Pool
from tests.size.fleets import NOW, seen

MB = 1_000_000


@pytest.mark.parametrize(
    ("name", "before", "service_ms", "after"),
    [
        ("the first window is believed", None, 50.0, Learned(50.0, 0.0, 1)),
        # 50 + (60 - 50) / 2; the variance 1/2 * (0 + 1/2 * 100) = 25
        ("the second counts as much", Learned(50.0, 0.0, 1), 60.0, Learned(55.0, 5.0, 2)),
        # 50 + (100 - 50) / 4; the variance 3/4 * (0 + 1/4 * 2500) = 468.75
        ("a later one a quarter", Learned(50.0, 0.0, 40), 100.0, Learned(62.5, 468.75**0.5, 41)),
        ("as it was: the spread shrinks", Learned(50.0, 4.0, 40), 50.0, Learned(50.0, 0.75**0.5 * 4, 41)),
    ],
)
def test_refined(name: str, before: Learned | None, service_ms: float, after: Learned) -> None:
    found = refined(before, service_ms)
    assert (found.service_ms, found.spread_ms) == pytest.approx((after.service_ms, after.spread_ms))
    assert found.windows == after.windows


def test_mean_and_spread_are_those_of_what_was_seen() -> None:
    """Windows of 50 +- 5 ms: the mean wanders by 5 * sqrt(0.25 / 1.75) = 1.9, the spread is sqrt(25 - 1.9^2) = 4.6."""
    known, spreads, means = None, [], []
    for service_ms in np.random.default_rng(1).normal(50, 5, 4000):
        known = refined(known, float(service_ms))
        spreads.append(known.spread_ms)
        means.append(known.service_ms)
    assert np.mean(np.square(spreads[50:])) ** 0.5 == pytest.approx(4.6, abs=0.4)
    assert np.std(means[50:]) == pytest.approx(1.9, abs=0.3)


def test_each_model_and_gpu_type_is_learned_apart() -> None:
    observation = seen(1, learned=[("small", 50.0, 0.0, 1), ("large", 20.0, 1.0, 7)])
    learned = learn(observation, {("m", "small"): 60.0, ("new", "small"): 9.0})
    assert learned == {
        ("m", "small"): Learned(55.0, 5.0, 2),
        ("m", "large"): Learned(20.0, 1.0, 7),
        ("new", "small"): Learned(9.0, 0.0, 1),
    }


def known(megabytes: float, spread: float = 0.0, looks: int = 9) -> LearnedFootprint:
    return LearnedFootprint(megabytes * MB, spread * MB, looks, NOW - 30)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("the first look is believed", None, (200, 0, 1)),
        # the mean of two; the variance 1/2 * (0 + 1/2 * 100^2) = 50^2
        ("the first ones count alike", known(100, 0, 1), (150, 50, 2)),
        # 100 + 100 / 4; the variance 3/4 * (0 + 1/4 * 100^2) = 1875
        ("then each moves little", known(100), (125, 1875**0.5, 10)),
        # 240 - 40 / 4; the variance 3/4 * (20^2 + 1/4 * 40^2) = 600
        ("down as up", known(240, 20), (230, 600**0.5, 10)),
    ],
)
def test_a_look_at_a_copy_of_200_mb(
    name: str, before: LearnedFootprint | None, after: tuple[float, float, int]
) -> None:
    learned = {} if before is None else {("m", "small"): before}
    found = learn_footprints(seen(1).fleet, learned, {("m", "small-0"): 200 * MB}, NOW)["m", "small"]
    assert (found.footprint_bytes / MB, found.spread_bytes / MB, found.looks) == pytest.approx(after)
    assert found.last_at == NOW


def test_the_largest_ready_copy_is_looked_at() -> None:
    """Of three, the third still loads; another GPU type keeps what was learned; a model that is gone is forgotten."""
    fleet = seen(3, states=(CopyState.READY, CopyState.READY, CopyState.LOADING)).fleet
    used = {("m", "small-0"): 100 * MB, ("m", "small-1"): 200 * MB, ("m", "small-2"): 300 * MB, ("x", "y"): 900 * MB}
    learned = learn_footprints(fleet, {("m", "large"): known(70), ("gone", "small"): known(50)}, used, NOW)
    assert learned == {("m", "small"): LearnedFootprint(200 * MB, 0, 1, NOW), ("m", "large"): known(70)}


@pytest.mark.parametrize(("mean", "spread", "kept"), [(620, 12, 644), (100, 0, 100)])
def test_room_is_kept_for_two_spreads(mean: int, spread: int, kept: int) -> None:
    assert kept_bytes(mean * MB, spread * MB) == kept * MB


SMALL, LARGE = (100, "measured"), (320, "measured")


@pytest.mark.parametrize(
    ("name", "source", "learned", "small", "large"),
    [
        ("nothing is learned", "measured", {}, SMALL, LARGE),
        ("a tenth more is chance", "measured", {"small": known(109)}, SMALL, LARGE),
        # 125 - 43 = 82 < 110
        ("so is what was seen once", "measured", {"small": known(125, 43)}, SMALL, LARGE),
        # 168 - 47 = 121 > 110; 168 + 2 * 47
        ("four looks are not", "measured", {"small": known(168, 47)}, (262, "learned"), LARGE),
        ("less is not believed", "measured", {"small": known(40)}, SMALL, LARGE),
        # 350 < 1.1 * 320: what is kept for the spread that was measured covers it
        ("each GPU type by itself", "measured", {"small": known(40), "large": known(350)}, SMALL, LARGE),
        ("and where it is more", "measured", {"large": known(600)}, SMALL, (600, "learned")),
        ("no more than a replica has room for: 1000 less a tenth", "measured", {"small": known(5000)},
         (900, "learned"), LARGE),
        ("what is declared stays", "declared", {"small": known(200)}, (100, "declared"), (320, "declared")),
    ],
)  # fmt: skip
def test_a_model_that_outgrew_what_is_known_of_it(
    name: str,
    source: str,
    learned: Mapping[str, LearnedFootprint],
    small: tuple[int, str],
    large: tuple[int, str],
) -> None:
    """100 +- 0 MB on the small type, of which a pool it may not live in has more; 300 +- 10 MB on the large one."""
    needs = {"small": measured(100, 0, source), "large": measured(300, 10, source)}
    model = Model("m", needs, Objective(50), pools=frozenset({"s", "l"}))
    pools = [Pool(n, g, mb * MB) for n, g, mb in (("s", "small", 1000), ("x", "small", 9000), ("l", "large", 4000))]
    fleet = Fleet((model,), tuple(pools), (), ())
    (found,) = reckoned(fleet, {("m", gpu_type): footprint for gpu_type, footprint in learned.items()})
    said = {g: (n.footprint_bytes // MB, n.footprint_source) for g, n in found.need_by_gpu_type.items()}
    assert said == {"small": small, "large": large}


def measured(megabytes: int, spread: int, source: str = "measured") -> Need:
    seen = megabytes * MB, spread * MB
    return Need(kept_bytes(*seen), 50.0, footprint_source=source, footprint_seen=seen)


@pytest.mark.parametrize(
    ("mean", "spread", "kept"),
    # 500 MB less a tenth are there for copies
    [(400, 20, 440), (400, 30, 450), (440, 30, 450), (460, 30, 460)],
)
def test_for_a_spread_no_more_is_kept_than_there_is_room(mean: int, spread: int, kept: int) -> None:
    """A model that fits by its mean keeps its place; one that does not is none the smaller for it."""
    fleet = seen(1, need=measured(mean, spread), pools=[Pool("small", "small", 500 * MB)]).fleet
    (model,) = reckoned(fleet, {})
    assert model.need_by_gpu_type["small"].footprint_bytes == kept * MB


def test_twice_the_memory_is_believed_at_the_fourth_look() -> None:
    fleet = seen(1, need=measured(100, 0)).fleet
    learned: Mapping[tuple[str, str], LearnedFootprint] = {("m", "small"): known(100)}
    kept_mb = []
    for _ in range(24):
        learned = learn_footprints(fleet, learned, {("m", "small-0"): 200 * MB}, NOW)
        (model,) = reckoned(fleet, learned)
        kept_mb.append(model.need_by_gpu_type["small"].footprint_bytes // MB)
    assert kept_mb[:6] == [100, 100, 100, 261, 261, 258]
    assert kept_mb[-1] == 206, "the spread of the change is forgotten"

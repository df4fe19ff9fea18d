"""Ratios, their bootstrap intervals and verdicts on known data."""

import numpy as np
import pytest

from bench.stats import FASTER, NO_DIFFERENCE, SLOWER, UNDECIDED, Ratio, ratio, spread, verdict

QUIET = Ratio(1.0, 0.999, 1.001)


def test_constant_ratio_has_no_width():
    assert ratio([3.0, 6.0, 1.5], [2.0, 4.0, 1.0]) == Ratio(1.5, 1.5, 1.5)


def test_median_of_ratios_is_not_the_ratio_of_medians():
    # the rounds' own ratios are 2, 2 and 1; the medians' would be 4 / 3
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 9.0]).value == 2.0


def test_interval_covers_the_true_median_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        found = ratio(1.3 * draw.lognormal(0, 0.1, 50), np.ones(50), seed=trial)
        hits += found.low <= 1.3 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_interval_narrows_with_rounds():
    draw = np.random.default_rng(2)
    few, many = (ratio(draw.lognormal(0, 0.1, n), np.ones(n)) for n in (10, 1000))
    assert many.high - many.low < 0.3 * (few.high - few.low)


def test_same_seed_same_interval():
    rival = np.random.default_rng(3).lognormal(0, 0.1, 30)
    assert ratio(rival, np.ones(30)) == ratio(rival, np.ones(30))


@pytest.mark.parametrize(
    ("pair", "noise", "expected"),
    [
        pytest.param(Ratio(1.3, 1.2, 1.4), QUIET, FASTER, id="above"),
        pytest.param(Ratio(0.7, 0.6, 0.8), QUIET, SLOWER, id="below"),
        pytest.param(Ratio(1.1, 0.9, 1.4), QUIET, NO_DIFFERENCE, id="spans-one"),
        pytest.param(Ratio(1.1, 1.0, 1.4), QUIET, NO_DIFFERENCE, id="touches-one"),
        pytest.param(Ratio(1.04, 1.03, 1.05), Ratio(1.0, 0.95, 1.02), NO_DIFFERENCE, id="within-noise"),
        pytest.param(
            Ratio(0.96, 0.95, 0.97), Ratio(1.05, 1.04, 1.06), NO_DIFFERENCE, id="within-biased-noise"
        ),
        pytest.param(Ratio(1.08, 1.07, 1.09), Ratio(1.0, 0.95, 1.02), FASTER, id="beyond-noise"),
    ],
)
def test_verdict(pair, noise, expected):
    assert verdict(pair, noise) == expected


def test_a_shared_core_leaves_the_verdict_open():
    assert verdict(Ratio(1.3, 1.2, 1.4), QUIET, shared=1) == UNDECIDED


@pytest.mark.parametrize(("rival", "candidate"), [([], []), ([1.0], [1.0, 2.0])], ids=["empty", "unequal"])
def test_rounds_that_do_not_match_are_refused(rival, candidate):
    with pytest.raises(ValueError, match="rounds: expected two equal numbers of rounds"):
        ratio(rival, candidate)


def test_spread():
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0]) == {"median_s": 3.0, "p10_s": 1.4, "p90_s": 4.6, "min_s": 1.0}

"""The forecast for many GPUs: its parts against cases told by hand, and the page that shows it."""

import dataclasses

import pytest

from bench import scaling
from bench.scaling import FAST, GPUS, MODELS, Links, allreduce_time, exposed_time, forecast

PLAIN = Links("plain", between=50e9, inside=400e9, reach=1.0, inside_delay=0.0, hop_delay=0.0)


@pytest.mark.parametrize(
    ("gpus", "seconds"),
    [
        (1, 0.0),
        (2, 1 / 400),
        (8, 2 * 7 / 8 / 400),
        # inside the machine everything, between machines an eighth of it for each GPU
        (16, 2 * 7 / 8 / 400 + 2 * 1 / 2 * (1 / 8) / 50),
        (32, 2 * 7 / 8 / 400 + 2 * 3 / 4 * (1 / 8) / 50),
    ],
)
def test_allreduce_of_a_gigabyte(gpus, seconds):
    assert allreduce_time(1e9, gpus, PLAIN) == pytest.approx(seconds)


def test_delays_and_reach_count():
    slow = dataclasses.replace(PLAIN, reach=0.5, inside_delay=1.0, hop_delay=0.1)
    assert allreduce_time(1e9, 8, slow) == pytest.approx(2 * allreduce_time(1e9, 8, PLAIN) + 1.0)
    assert allreduce_time(1e9, 64, slow) == pytest.approx(2 * allreduce_time(1e9, 64, PLAIN) + 1.0 + 0.6)


@pytest.mark.parametrize("each", [0.01, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("buckets", [1, 2, 5, 10])
def test_what_shows_of_the_communication_is_what_a_timeline_says(buckets, each):
    free = 0.0
    for bucket in range(buckets):
        filled = (bucket + 1) / buckets
        free = max(free, filled) + each
    assert exposed_time(1.0, buckets, each) == pytest.approx(free - 1.0)


def test_more_gpus_are_never_worse_in_all_and_never_better_each():
    for model in MODELS:
        alone = scaling.step_alone(model)
        rows = [forecast(scaling.gradient_bytes(model), alone, gpus, FAST) for gpus in GPUS]
        assert rows[0].efficiency == 1.0
        efficiencies = [row.efficiency for row in rows]
        assert efficiencies == sorted(efficiencies, reverse=True)
        rates = [gpus / row.step for gpus, row in zip(GPUS, rows, strict=True)]
        assert rates == sorted(rates)


def test_gradients_are_those_of_the_published_networks():
    """arXiv:1902.09212, table 1: 28.5 and 63.6 million parameters."""
    assert [round(scaling.gradient_bytes(model) / 4e6, 1) for model in MODELS] == [28.5, 63.6]


def test_the_page_shows_what_the_model_says():
    page = scaling.PAGE.read_text()
    assert page == scaling.with_tables(page), "run python -m bench.scaling --write"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="expected one line"):
        scaling.with_tables("# Nothing here\n")

"""Schedules are functions of the environment steps."""

import pytest

from rlexp.functional.schedules import constant, linear


def test_constant(progress) -> None:
    assert [constant(progress(steps), value=0.3) for steps in (0, 500, 1000)] == [0.3] * 3


@pytest.mark.parametrize(
    ("env_steps", "value"), [(0, 1.0), (50, 0.775), (100, 0.55), (200, 0.1), (201, 0.1), (1000, 0.1), (5000, 0.1)]
)
def test_linear_by_hand(env_steps: int, value: float, progress) -> None:
    assert linear(progress(env_steps), start=1.0, end=0.1, fraction=0.2) == pytest.approx(value, abs=1e-12)


def test_linear_may_rise_and_reaches_its_end_exactly(progress) -> None:
    assert linear(progress(500), start=0.0, end=0.7, fraction=1.0) == pytest.approx(0.35)
    assert linear(progress(1000), start=0.0, end=0.7, fraction=1.0) == 0.7


def test_linear_without_a_fraction_is_its_end_after_one_step(progress) -> None:
    assert linear(progress(1), start=1.0, end=0.1, fraction=0.0) == 0.1


def test_the_number_of_updates_changes_nothing(progress) -> None:
    values = {linear(progress(100, updates=updates), start=1.0, end=0.0, fraction=1.0) for updates in (0, 7, 10**6)}
    assert len(values) == 1

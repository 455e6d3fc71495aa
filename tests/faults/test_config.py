"""Faults of a command line: typing errors, wrong values, settings that do not go together."""

from collections.abc import Sequence
from typing import Any

import pytest
from config_faults import OTHERS, PAIRS, Fault, complaint, faults, refuse

from rlexp.experiment import check, spaces
from rlexp.experiment.rules import RULES, SPACE_RULES

ALL = faults()


def complaints(chosen: Sequence[Fault]) -> list[str]:
    return [wrong for fault in chosen if (wrong := complaint(fault, refuse(fault.arguments)))]


def of_kind(*kinds: str) -> list[Fault]:
    return [fault for fault in ALL if fault.kind.startswith(kinds)]


def test_f50_a_mistyped_key_or_choice_is_refused_with_one_line() -> None:
    """Every key with one letter left out, doubled, replaced or exchanged, and unknown choices of every group: exit
    code 2, one line, nothing made.
    """
    chosen = of_kind("typing error", "unknown choice")
    assert len(chosen) > 350
    assert complaints(chosen) == []


def test_f50_the_nearest_key_is_named() -> None:
    """Every mistyped key is answered with "did you mean" and a key that there is."""
    lines = [fault.arguments for fault in of_kind("typing error")]
    assert [line for line in lines if "(did you mean '" not in refuse(line).stderr] == []


def test_f51_a_value_of_a_wrong_type_or_out_of_its_range_is_refused() -> None:
    """Every field with a value of another type (truth values for numbers too), and every bounded field beyond each end
    of its range: exit code 2, one line that names the field.
    """
    chosen = of_kind("wrong type", "out of range")
    assert len(chosen) > 200
    assert complaints(chosen) == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "-1", "true", "null", "'1'"])
def test_f51_what_is_no_proper_number_is_refused(value: str) -> None:
    """Not a number, infinity, a negative number, a truth value, nothing and a text in place of a number: refused, and
    field and value are named.
    """
    for field in ("total_env_steps", "experience.num_envs", "optimizer.learning_rate"):
        answer = refuse([f"{field}={value}"])
        assert complaint(Fault("wrong type", [f"{field}={value}"]), answer) is None
        assert field in answer.stderr


def test_f52_settings_that_do_not_go_together_are_refused_by_a_rule_s_name() -> None:
    """More than sixty pairs that are right alone and cannot work together: exit code 2 by the name of the rule."""
    pairs = of_kind("rule ")
    assert len(pairs) >= 60
    assert {fault.kind.removeprefix("rule ") for fault in pairs} == {rule.__name__ for rule in RULES}
    assert complaints(pairs) == []


def test_f52_only_rules_about_spaces_start_a_probe_and_they_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose spaces must be asked for: rules about spaces make one probe, the others none."""
    asked: list[str] = []

    def count(env_id: str, request: str) -> dict[str, Any]:
        asked.append(env_id)
        return {"of": env_id, "observation": {"kind": "box", "shape": [2]}, "action": {"kind": "box", "shape": [1]},
                "time_limit": 10, "has_model": False}  # fmt: skip

    monkeypatch.setattr(spaces, "_ask", count)
    for rule, lines in PAIRS.items():
        for line in lines:
            asked.clear()
            spaces._probed.clear()
            refuse(line)
            assert len(asked) <= (rule in SPACE_RULES), line
    asked.clear()
    spaces._probed.clear()
    assert "action_space" in refuse(["algorithm=dqn", "env.id=Unknown-v0"]).stderr
    assert asked == ["Unknown-v0"]
    spaces._probed.clear()
    assert check.declared_spec is spaces.declared_spec


def test_f52_other_contradictions_are_refused() -> None:
    """Flags, sweeps, seeds, targets and files that contradict each other or do not exist: exit code 2 and one line."""
    assert complaints([Fault("other", line) for line in OTHERS]) == []

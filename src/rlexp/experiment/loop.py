"""The loop: data, updates, feedback, callbacks. It knows no algorithm, environment or logger by name."""

from collections.abc import Sequence

from rlexp.experiment.build import Parts
from rlexp.types import Callback, Update


def train(parts: Parts, callbacks: Sequence[Callback]) -> str | None:
    """Run until `total_env_steps`, until the experience is finished, or until a callback asks to stop.

    A turn is some data and all the updates that it owes; callbacks are told of whole turns, so that nothing is logged,
    evaluated or saved between the data and what is learned from it. Seeds that are equally far are one member of the
    state, updated at once; others are members of their own, each with its share of the data.
    Returns the callback's reason, None where the run came to its end.

    May be called on parts that were loaded from a checkpoint: it goes on where they stand.
    """
    state, experience, clock = parts.state, parts.experience, parts.clock
    while state.progress.env_steps < state.progress.total_env_steps and not experience.finished:
        updates: list[list[Update]] = [[] for _ in state.members]
        owed = True
        while owed:
            clock.switch("other")
            batch = experience.next(parts.actor, state.progress)
            state.advance(experience)
            for member, share, learned in zip(state.members, state.shares(batch), updates, strict=True):
                if share is not None:
                    clock.switch("update")
                    update = parts.algorithm.update(member, share, member.progress)
                    experience.feedback(member, update)
                    learned.append(update)
            owed = experience.owed
        clock.switch("report")
        for callback in callbacks:
            reason = callback(state.progress, updates, state)
            if reason is not None:
                return reason
    return None

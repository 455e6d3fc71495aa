"""`rlexp-evaluate RUN`: the distinct evaluation routine on the weights of a saved run."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rlexp.cli.common import Parser, add_policy_of_a_run, changed_line, guarded, positive


def main() -> None:
    """The console script."""
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def command(arguments: Sequence[str]) -> int:
    """Evaluate one run; raises RlexpError for what a person must know."""
    parser = Parser(prog="rlexp-evaluate", description=__doc__)
    add_policy_of_a_run(parser)
    parser.add_argument("--episodes", type=positive, default=200, help="how many (200)")
    parser.add_argument("--save-episodes", type=Path, metavar="DIR", help="save their steps as data in a new folder")
    options = parser.parse_args(list(arguments))
    from rlexp.experiment.saved import evaluate_saved, load_saved, record_saved

    directory = options.save_episodes
    if directory is None:
        result = evaluate_saved(
            options.run, options.weights, options.episodes, options.policy, options.plugin, options.device
        )
    else:
        saved = load_saved(options.run, options.weights, options.plugin, options.device)
        result, steps, changed = record_saved(saved, options.episodes, options.policy, directory)
        if changed:
            sys.stderr.write(changed_line(options.run, changed))
    sys.stdout.write(
        f"{options.weights} return {result.mean:.1f} +- {result.std:.1f} over {len(result.returns)} episodes; "
        f"{options.run}\n"
    )
    if directory is not None:
        sys.stdout.write(f"saved {len(result.returns)} episodes, {steps} steps: {directory}\n")
    return 0

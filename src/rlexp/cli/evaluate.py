"""`rlexp-evaluate RUN`: the distinct evaluation routine on the weights of a saved run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rlexp.cli.common import Parser, guarded


def main() -> None:
    """The console script."""
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def command(arguments: Sequence[str]) -> int:
    """Evaluate one run; raises RlexpError for what a person must know."""
    parser = Parser(prog="rlexp-evaluate", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run, such as outputs/ppo_cartpole-v1/1a2b3c4d/s0")
    parser.add_argument("--episodes", type=_positive, default=200, help="how many (200)")
    parser.add_argument("--weights", choices=("final", "best"), default="final", help="which weights (final)")
    parser.add_argument("--policy", choices=("deterministic", "sampled"), help="default: as the run was configured")
    parser.add_argument("--plugin", action="append", default=[], help="a package of your own that the run used")
    parser.add_argument("--device", help="in place of the one that the run was made on")
    options = parser.parse_args(list(arguments))
    from rlexp.experiment.saved import evaluate_saved

    result = evaluate_saved(
        options.run, options.weights, options.episodes, options.policy, options.plugin, options.device
    )
    sys.stdout.write(
        f"{options.weights} return {result.mean:.1f} +- {result.std:.1f} over {len(result.returns)} episodes; "
        f"{options.run}\n"
    )
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)

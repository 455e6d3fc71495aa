"""A run as a person meets it: shown while it goes, and a last line with the result and where it lies."""

import sys

from rlexp.experiment.check import Checked
from rlexp.experiment.display import Display
from rlexp.experiment.identity import family_name, human_name
from rlexp.experiment.run import Outcome, run


def run_one(checked: Checked) -> Outcome:
    """Run a checked job with its display; the result's line goes to stdout."""
    config = checked.config
    name = checked.name or human_name(checked.overrides, config["seed"])
    display = Display(config["display"], f"{family_name(config)}  {name}")
    display.show_config(config)
    outcome = run(checked, display)
    sys.stdout.write(result_line(outcome) + "\n")
    sys.stdout.flush()
    return outcome


def result_line(outcome: Outcome) -> str:
    parts = [
        f"{which} return {result['return']:.1f} +- {result['return_std']:.1f} over {result['episodes']} episodes "
        f"(env_steps={result['env_steps']})"
        for which, result in outcome.results.items()
    ]
    said = "finished already" if outcome.was_finished else "finished"
    return f"{said}: {'; '.join(parts) or 'no evaluation'}; {outcome.directory}"

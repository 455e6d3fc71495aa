"""A run as a person meets it: shown while it goes, and a last line with the result and where it lies."""

import statistics
import sys

from rlexp.experiment.check import Checked
from rlexp.experiment.display import Display
from rlexp.experiment.endings import Results
from rlexp.experiment.identity import family_name
from rlexp.experiment.run import Outcome, name_of_job, run


def run_one(checked: Checked) -> Outcome:
    """Run a checked job with its display; the result's line goes to stdout."""
    config = checked.config
    display = Display(config["display"], f"{family_name(config)}  {name_of_job(checked)}")
    display.show_config(config)
    outcome = run(checked, display)
    sys.stdout.write(result_line(outcome) + "\n")
    sys.stdout.flush()
    return outcome


def result_line(outcome: Outcome) -> str:
    """`final return 500.0 +- 0.0 over 200 episodes`; of several seeds the spread is theirs."""
    parts = [_summary(which, outcome.results) for which in ("final", "best")]
    said = "finished already" if outcome.was_finished else "finished"
    return f"{said}: {'; '.join(part for part in parts if part) or 'no evaluation'}; {outcome.directory}"


def _summary(which: str, results: Results) -> str:
    found = {seed: of_seed[which] for seed, of_seed in results.items() if which in of_seed}
    if not found:
        return ""
    if len(results) == 1:
        (result,) = found.values()
        spread, over, reached = result["return_std"], f"{result['episodes']} episodes", result["env_steps"]
        return f"{which} return {result['return']:.1f} +- {spread:.1f} over {over} (env_steps={reached})"
    returns = [result["return"] for result in found.values()]
    spread = statistics.stdev(returns) if len(returns) > 1 else 0.0
    each = ", ".join(f"{value:.1f}" for value in returns)
    return f"{which} return {statistics.fmean(returns):.1f} +- {spread:.1f} over {len(returns)} seeds ({each})"

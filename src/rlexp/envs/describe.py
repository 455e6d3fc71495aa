"""`python -m rlexp.envs.describe '{"id": ..., "kwargs": {...}, "plugins": [...]}'`: a JSON line about one environment.

A process of its own, so that an environment that hangs or crashes while it is made takes nothing with it. Its standard
input is a pipe that the caller holds open: when that ends, so does this process.
"""

import importlib
import json
import sys
from typing import Any

from rlexp.envs.make import describe
from rlexp.envs.processes import end_with_the_writer_of


def main() -> int:
    end_with_the_writer_of(sys.stdin.fileno())
    request = json.loads(sys.argv[1])
    answer: dict[str, Any]
    try:
        for plugin in request["plugins"]:
            importlib.import_module(plugin)
        answer = {"spec": describe(request["id"], request["kwargs"])}
    except Exception as error:  # whatever an environment raises is reported in one line by the caller
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

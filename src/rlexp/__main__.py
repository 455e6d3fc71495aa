"""`python -m rlexp` is the command `rlexp`."""

from rlexp.cli.main import main

main()

"""Faults injected for real, one test or more for each fault of the catalogue; run with `-m faults`."""

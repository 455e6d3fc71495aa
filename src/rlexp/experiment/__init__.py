"""Experiments: configuration to parts, the loop, what is logged, evaluated, saved and resumed."""

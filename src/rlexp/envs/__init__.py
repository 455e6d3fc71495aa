"""Environments: Gymnasium to arrays, models, probes."""

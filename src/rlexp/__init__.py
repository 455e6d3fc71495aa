"""rlexp: a config-driven experiment runner for reinforcement learning."""

__version__ = "0.1.0"

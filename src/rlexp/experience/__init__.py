"""What data comes, and when: rollouts, replay, sweeps over a model."""

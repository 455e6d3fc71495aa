"""Pure functions on tensors: the mathematics of the notes, one file a topic."""

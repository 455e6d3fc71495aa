"""The commands."""

import os

# Before NumPy is imported. Products here are small: a BLAS that shares them among threads takes longer for each, and
# four times as long where two runs do so on two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

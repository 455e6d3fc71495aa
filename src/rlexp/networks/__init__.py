"""Networks: torsos chosen by the `network` group, heads chosen by the algorithm, tables."""

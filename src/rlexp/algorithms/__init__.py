"""Algorithms, one file each; a file reads like its pseudocode."""

"""Stores of experience."""

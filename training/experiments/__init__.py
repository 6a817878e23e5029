"""Experiments: how variants are compared, and what may be concluded."""

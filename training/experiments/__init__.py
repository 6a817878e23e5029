"""Experiments: statistics, figures and reports."""

"""Adapters of outside logs: each turns its files into logged decisions."""

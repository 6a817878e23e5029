"""The statistics of experiments beside gbstats, which lives in an environment of its own."""

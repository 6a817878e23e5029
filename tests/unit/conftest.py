"""Settings of the property tests: no deadline, since the machine may be busy, and the same examples in every run."""

from hypothesis import settings

settings.register_profile("search", deadline=None, max_examples=2_000, print_blob=True)
settings.register_profile("unit", deadline=None, derandomize=True, database=None)
settings.load_profile("unit")

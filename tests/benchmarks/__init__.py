"""What a decision costs, as ratios against floors measured in the same run; `python -m tests.benchmarks` is the command."""

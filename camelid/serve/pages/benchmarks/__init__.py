"""The Benchmarks pages: results of evaluations, and their items one at a time."""

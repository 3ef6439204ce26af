"""The rows of the benchmark, one group a file."""

"""Benchmarks: each prints its ratio to a ceiling that it measures in the same run."""

"""Decisions of the market: pure, deterministic, with time and ids as parameters."""

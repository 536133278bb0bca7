"""Ledger, escrow, metering, fees, batches and chain."""

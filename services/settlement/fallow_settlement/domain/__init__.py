"""What settlement decides: ledger, escrow, metering, charges, transactions to the chain. Pure: no clock, no input or output."""

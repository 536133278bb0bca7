"""Use-cases: each one transaction that loads, decides, writes and emits.

Rows are locked in one order everywhere: provider, then orders by id, then auctions, then leases. Who changes a lease holds its
order's row, because the order's events are numbered.
"""

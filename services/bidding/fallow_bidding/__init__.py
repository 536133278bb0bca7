"""Inventory, offers, auctions, matching engine and leases."""

"""Subcommands of `fallow` for tenants."""

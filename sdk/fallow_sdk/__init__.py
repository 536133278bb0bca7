"""Typed client of the Fallow API and the fallow command."""

"""Akash's Stack Definition Language in, a Fallow order out."""

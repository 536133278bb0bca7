"""Ids of requests: one for each write, so that a repeat is known as one."""

import secrets


def new_request_id() -> str:
    """An id for one write. Keep it to repeat the same write safely."""
    return secrets.token_hex(16)

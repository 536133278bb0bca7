"""Orders, funds check and sessions."""

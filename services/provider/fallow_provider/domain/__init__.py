"""What the agent decides, with nothing of the world in it."""

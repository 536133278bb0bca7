"""The engine's core in columns: what is free, what a state of a node is worth, where one replica goes."""

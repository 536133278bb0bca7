"""What an order, a session and a key are, and what may happen to them. Pure: no I/O, no clock, no protobuf."""

"""gRPC servicers: decode, call a use-case or a read, encode."""

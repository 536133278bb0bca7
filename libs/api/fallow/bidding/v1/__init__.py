"""Generated code of the protobuf package fallow.bidding.v1."""

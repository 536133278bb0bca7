"""Generated code of the protobuf package fallow.settlement.v1."""

"""Generated code of the protobuf package fallow.provider."""

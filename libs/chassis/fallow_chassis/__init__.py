"""What every Fallow service stands on."""

"""What the operators do with values."""

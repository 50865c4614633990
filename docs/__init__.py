"""The documentation, and the generators of its reference pages."""

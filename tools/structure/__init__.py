"""The shape of the product in figures: files, functions, names, and the path of one task."""

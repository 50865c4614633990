"""The functions of the language, and the methods of its values."""

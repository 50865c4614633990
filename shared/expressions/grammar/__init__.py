"""What expressions look like: from text to a tree."""

"""From a tree to closures, and what they do when they run."""

"""What each request passes through, from the outside in."""

"""Tasks in containers, by any engine that speaks the API of Docker."""

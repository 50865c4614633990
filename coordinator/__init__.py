"""The coordinator: serves the REST API and decides what runs next."""

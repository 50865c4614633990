"""The REST API: aiohttp, one module per resource, and its OpenAPI document from the same routes."""

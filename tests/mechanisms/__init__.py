"""Which test notices when a mechanism is taken out: `python -m tests.mechanisms`."""

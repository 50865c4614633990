"""The face of Haulier: its client and its command."""

__version__ = "0.1.0"

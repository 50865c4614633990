"""Timed work: stored, and shared among all coordinators."""

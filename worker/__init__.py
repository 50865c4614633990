"""The muscle: takes tasks, runs each in a container, reports."""

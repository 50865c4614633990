"""The worker: claims tasks, runs each in a container or as a local process, and reports the results."""

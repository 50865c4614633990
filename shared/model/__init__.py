"""The shared model: the job language, documents, messages, and the views of the API."""

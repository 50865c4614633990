"""What both sides speak: the job language, documents, messages, and the views of the API."""

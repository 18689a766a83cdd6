"""OpenAI's API: one file an endpoint."""

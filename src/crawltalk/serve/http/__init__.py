"""HTTP below the API: the server, the middleware that every request passes, bodies and metrics."""

"""Finding text: suffix arrays, the trace from a text back to the training data, full-text search."""

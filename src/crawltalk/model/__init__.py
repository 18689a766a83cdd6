"""The Transformer, its key/value cache, and the file formats of its weights."""

"""The Transformer, its key/value cache, and the formats that its weights come and go in."""

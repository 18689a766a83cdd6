"""The page that people use, and the JSON behind it."""

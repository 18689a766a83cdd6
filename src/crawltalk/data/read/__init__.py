"""Pages out of files."""

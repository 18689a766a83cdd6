"""What runs the data stage in parallel: processes of this machine, or a Ray cluster."""

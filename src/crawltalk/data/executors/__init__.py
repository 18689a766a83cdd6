"""What spreads the work of the data stage."""

"""Runs: directories of stages, how a stage is built, and what a person sees meanwhile."""

"""The record of the data stage: funnel, comparison with the known truth, dataset card."""

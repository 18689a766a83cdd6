"""Programs of others that judge models, run as clients of our server: garak, AgentDojo, lm-evaluation-harness.

Each lives in an environment of its own and is never imported. What it reports is read into one `Report`, and beside
each of its verdicts stands ours on the same attempt. Where the two differ, the report says why.
"""

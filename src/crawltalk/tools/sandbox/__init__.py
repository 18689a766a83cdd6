"""Where Python that a model wrote runs: `monty` (an interpreter of its own, a part of Python), or `cpython` (all of
it, in a process that the kernel confines).
"""

"""What every part stands on: errors, types, recipes, runs, files, the console. Imports neither torch nor
numba.
"""

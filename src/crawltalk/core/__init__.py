"""What every other package may import: errors, types, files of rows and token shards. Imports neither torch
nor numba.
"""

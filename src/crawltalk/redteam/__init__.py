"""Red team: attacks and defences as plain functions, against our own models, endpoints and applications.

Everything is harmless by construction: what is forbidden is a policy of ours, such as the keys of doors. A new attack
is a function and an `Attack` record, a new defence a function and a `Defense`.
"""

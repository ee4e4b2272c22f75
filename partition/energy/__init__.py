"""Energy meters of the boards that have one, and models of power for those that have none.

May import: codec.
"""

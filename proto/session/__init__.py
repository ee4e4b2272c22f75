"""The `Infer` stream without I/O: what both ends say and when, with neither a clock nor a loop.

May import: frames, limits, status.
"""

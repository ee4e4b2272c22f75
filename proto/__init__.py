"""The wire: messages, their checks, and the table of statuses. Nothing here does I/O.

May import: codec.
"""

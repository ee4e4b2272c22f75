"""Where a graph may be cut, and which of those cuts can be best on some device and link.

May import: bundle, errors; codec.
"""

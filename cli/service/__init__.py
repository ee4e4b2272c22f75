"""The HTTP service of `run --http`: requests from other programs, figures, and a page of them.

May import: run, shell; edge, partition, proto, codec.
"""

"""The compiled model on disk, and what its manifest says: graph, boundaries, codecs, inputs.

May import: errors, look, picture, tasks; codec.
"""

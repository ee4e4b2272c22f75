"""Where results go.

May import: errors, meaning, result, sources; codec, partition.
"""

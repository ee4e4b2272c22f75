"""What is asked of a GPU, on which streams, in which form; and what its errors say.

May import: errors, options; codec, partition.
"""

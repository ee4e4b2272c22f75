"""The page that `plan --html` writes, and its charts.

May import: shell; codec, partition.
"""

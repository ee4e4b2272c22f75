"""What `run` shows: its session, lines of results, the live table, the summary.

May import: shell; codec, edge, partition, proto.
"""

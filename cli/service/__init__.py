"""The HTTP service of `run --http`: requests from other programs, figures, and a page of them.

Also the page of `serve --http`.

May import: run, shell; cloud, edge, partition, proto, codec.
"""

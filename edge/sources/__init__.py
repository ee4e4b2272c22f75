"""Where frames come from: files, folders, standard input, videos and cameras.

May import: errors, given; codec, partition, proto.
"""

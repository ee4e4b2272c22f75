"""What all commands share with the shell: output, log lines, configuration, signals, pipes.

May import: codec, edge, partition, proto.
"""

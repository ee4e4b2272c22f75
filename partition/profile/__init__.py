"""What a device takes for each layer, segment and codec: measured, kept, and scaled to others.

May import: bundle, energy, errors, kept_files, progress, run, strict_json; codec.
"""

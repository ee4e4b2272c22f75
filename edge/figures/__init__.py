"""What a run tells about itself: quantiles, outcomes, energy.

May import: errors, result; codec, partition.
"""

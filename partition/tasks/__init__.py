"""What a model is for, and from its outputs to the answer: classes, boxes, or a map of classes.

May import: errors; codec.
"""

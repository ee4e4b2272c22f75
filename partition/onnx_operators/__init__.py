"""ONNX's operators, computed with torch's; a file a family.

May import: errors; codec.
"""

# Generated from python/bmdb/loops/_async/__init__.py by tools/generate_sync.py: do not edit.
"""What the instances of a loop do, by hand."""

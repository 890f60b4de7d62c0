# Generated from python/bmdb/_async/__init__.py by tools/generate_sync.py: do not edit.
"""The asyncio API, written by hand; the sync API is generated from it."""

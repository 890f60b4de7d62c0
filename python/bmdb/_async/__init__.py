"""The asyncio API, written by hand; the sync API is generated from it."""

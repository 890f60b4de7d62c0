"""The test suite of bmdb."""

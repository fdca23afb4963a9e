"""Fuzzing of everything that reads bytes from a buffer's directory; docs/testing.md tells how it works."""

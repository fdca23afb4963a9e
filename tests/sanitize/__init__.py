"""Tests of the extension under AddressSanitizer and UBSan; docs/testing.md tells how to run them."""

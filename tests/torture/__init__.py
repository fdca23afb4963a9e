"""Proofs by force: real processes, a real broker, kill -9, and a comparison of what was written with what arrived."""

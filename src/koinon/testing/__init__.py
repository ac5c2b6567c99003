"""Conformance suites for parts that others write: each raises AssertionError and says what does not hold."""

"""Benchmarks. Run by hand, on one machine, over loopback; nothing here is a test, and nothing in app imports it."""

"""Benchmarks and experiments; each is one command that can be stopped and resumed."""

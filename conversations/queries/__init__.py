"""Questions about many conversations that only an aggregation answers.

Each module is one question: one round trip, and plain values of it.
"""

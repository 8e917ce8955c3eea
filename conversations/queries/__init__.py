"""How conversations are found: each list, search, count and feed has its statement in one module.

A query gets plain values, sends its statement and returns plain values. It changes nothing.
"""

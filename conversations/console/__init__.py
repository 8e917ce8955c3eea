"""The console: staff look conversations up, and act through store.py as the API does.

Nothing is edited here: that would bypass the rules in changes.py.
"""

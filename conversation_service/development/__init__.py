"""A real MongoDB and a real Valkey for one developer or one test run. Never for production.

The servers come as wheels that only requirements/local.txt installs; nothing here is imported by
the service itself.
"""

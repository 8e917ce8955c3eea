"""django-mongodb-backend 5.2.4 with five corrections. Delete each when the backend has it.

They depend on internals of exactly that version. The tests, which read query plans from MongoDB,
must pass with a new version.
"""

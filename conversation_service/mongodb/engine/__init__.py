"""django-mongodb-backend 5.2.4 with five corrections, each deleted when upstream has it.

They rest on internals of exactly that version: a new one is taken when the tests, which ask the
server for its query plans, still pass.
"""

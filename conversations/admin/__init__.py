"""The admin console: staff look conversations up, and act through the same writes as the API."""

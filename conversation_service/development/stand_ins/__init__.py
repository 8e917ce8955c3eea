"""Stand-ins for the upstreams, for development on one machine. They have no storage."""

"""Small stand-ins for our neighbours, for one developer on one machine. Nothing is kept."""

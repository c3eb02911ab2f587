"""Clients of the servers that the tick reads and drives."""

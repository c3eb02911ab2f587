"""An embedded stand-in for a cluster, made of real servers on loopback."""

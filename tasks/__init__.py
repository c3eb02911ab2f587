"""The work of a tick: Prefect tasks at the edges, pure decisions inside, thin clients."""

"""What is scheduled: one file per flow."""

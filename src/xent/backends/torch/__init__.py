"""The readable definition of the row statistics, in plain torch operations."""

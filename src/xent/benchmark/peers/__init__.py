"""The programs that are compared: every one gets the same data and is asked for the same."""

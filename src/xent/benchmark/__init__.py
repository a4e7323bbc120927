"""How fast, and in how much memory: xent beside its peers, in multiples of what memory allows."""

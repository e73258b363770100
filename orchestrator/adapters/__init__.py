"""One file per outside thing; adapters never import one another."""

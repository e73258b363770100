"""One file per API family; the only place that imports openai."""

"""The pure part: events in, actions out. No clock, no chance, no async, no files, no network."""

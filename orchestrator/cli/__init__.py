"""The command line: words typed by a person, one file a command."""

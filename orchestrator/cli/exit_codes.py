"""What a command ends with; scripts rely on it."""

ALL_COMPLETED = 0
SOME_DID_NOT = 1
MISTAKE = 2  # something the user gave us can't be used; nothing was sent
STOPPED_EARLY = 3  # a refused key, an empty account, a full disk
INTERRUPTED = 130  # Ctrl-C or SIGTERM

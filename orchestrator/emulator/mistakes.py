"""What is wrong with the emulator's settings, said so that a person can put it right."""


class EmulatorMistake(ValueError):  # noqa: N818 - a person's mistake, not a program's error
    """A setting, or a file that settings point to, can't be used.

    The message names what was given, where (file and line or rule), and what to do.
    """

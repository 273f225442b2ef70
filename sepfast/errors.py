"""The exceptions that sepfast raises for what a person gave it."""


class InputError(ValueError):
    """An argument, a file or a folder that cannot be used.

    The message is one sentence for the person who gave it: which argument, what came, what is
    taken. The command line prints it alone and exits with code 2.
    """

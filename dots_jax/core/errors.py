"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """What is wrong, where, and what to do, in one line; `main` prints it and exits with code 2."""

"""Errors that the user can fix: one line that says what is wrong and what to do, and exit code 2.

A bug of crawltalk is an ordinary exception and keeps its traceback.
"""

import errno
import os


def disk_is_full(error: BaseException) -> bool:
    """Whether the error means a full disk or quota. Native libraries keep the text of the system's error but not
    its number, so the text is compared too.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(os.strerror(code) in str(error) for code in full)


def is_denied(error: OSError) -> bool:
    """Whether the error means that a file or folder may not be read or written, or lies on a read-only system."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


class StageCrashed(Exception):
    """A stage ended by a signal or a traceback: a bug, or a fault of the machine. Exit code 1."""


class GateFailed(Exception):
    """What was measured is not what a gate asks for. Exit code 1."""


class UserError(Exception):
    """Base of every error that a user can fix; its text is the one line that is printed."""


class BadRecipe(UserError):
    """A recipe, overlay or flag holds an unknown key, a wrong type or a value out of range."""


class MissingInput(UserError):
    """A stage, file or folder that is needed does not exist."""


class BadInput(UserError):
    """A file exists, but its content is not what it should be."""


class ContextOverflow(BadInput):
    """A prompt has more tokens than the model reads."""


class TooBig(UserError):
    """This machine has too little memory for the recipe, or would take too long."""

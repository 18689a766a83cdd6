"""The user's mistakes. Each is one line that tells what is wrong and the way out, and ends the program with
exit code 2.

Anything that is *our* mistake is an ordinary exception and keeps its traceback.
"""

import errno
import os


def disk_is_full(error: BaseException) -> bool:
    """Whether the error is that of a full disk or quota. Libraries in other languages keep the text of the error
    but not its number, so that is looked at, too.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(os.strerror(code) in str(error) for code in full)


class StageCrashed(Exception):
    """A stage ended by a signal or a traceback: our mistake, or the machine's. Exit code 1."""


class UserError(Exception):
    """Base of every error that a user can mend; its text is the one line that is printed."""


class BadRecipe(UserError):
    """A recipe, overlay or flag holds an unknown key, a wrong type or a value out of range."""


class MissingInput(UserError):
    """A stage, file or folder that is needed is not there."""


class BadInput(UserError):
    """A file is there, but it is not what it should be."""


class TooBig(UserError):
    """This machine has too little memory for the recipe, or would take too long."""

"""What to do about an error, in the words of the command line.

The library's errors state the fact, and name what remedies it in `GteError.remedy`; the flag that does so is said here.
"""

from gte_sdk.errors import GteError

REMEDIES = {
    "overwrite": "give --overwrite to replace it",
}


def message_with_flag(error: GteError) -> str:
    """The message of an error, with the flag that remedies it if there is one."""
    return f"{error}; {REMEDIES[error.remedy]}" if error.remedy in REMEDIES else str(error)

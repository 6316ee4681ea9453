"""What to do about an error, in the words of the command line.

The library's errors state the fact, and name what remedies it in `GteError.remedy`; the flag that does so is said here.
"""

from gte_sdk.errors import GteError

REMEDIES = {
    "overwrite": "give --overwrite to replace it",
    "unfinished": "give --resume to continue it, or --overwrite to start over",
    "other run": "run it as before, or give --overwrite without --resume to start over",
    "other rows": "give --overwrite without --resume to start over",
    "resume": "run the same command with --resume",
    "input format": "give --input-format",
    "input format json": "give --input-format json",
    "input format csv": "give --input-format csv",
    "column": "name one with --column",
    "delimiter": "give --delimiter, such as --delimiter ';' or --delimiter ,",
    "encoding": "give its --encoding, such as --encoding cp1252",
    "encoding utf-16": "give --encoding utf-16",
    "on null": "give --on-null skip or --on-null empty",
    "make index": "make a passage index with: gte index FOLDER --output FILE",
    "update index": "update it with: gte index --output FILE",
    "rebuild": "make it again with: gte index --rebuild",
    "output format": "give --format",
    "format npy": "use --format npy",
    "format jsonl": "--format jsonl keeps rows as they are",
    "format parquet": "--format parquet keeps them",
    "vector column": "name another with --vector-column",
    "vectors there": "name another with --vector-column, or give --replace",
}


def message_with_flag(error: GteError) -> str:
    """The message of an error, with the flag that remedies it if there is one."""
    return f"{error}; {REMEDIES[error.remedy]}" if error.remedy in REMEDIES else str(error)

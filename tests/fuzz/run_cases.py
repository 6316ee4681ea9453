"""Runs cases of one format, one line each: python tests/fuzz/run_cases.py FORMAT FIRST LAST FOLDER

A case is a seed. Its line says `read`, `refused` (an error of ours) or what else was raised, and where. The process
ends by itself where a case takes too long; test_formats.py goes on behind the case that ended it.
"""

import faulthandler
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

from formats import prepare

from gte_sdk.errors import MOST_CHARACTERS, GteError

SECONDS = 60  # a case takes milliseconds; so long only where it does not end
BYTES = 4 << 30  # of address space: more than the libraries map, less than a length out of a file asks for


def outcome_of(case: Callable[[Random], None], seed: int) -> str:
    try:
        case(Random(seed))
    except GteError as error:
        length = len(str(error))
        return "refused" if 0 < length <= MOST_CHARACTERS else f"refused in {length} characters: {str(error)[:200]!r}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers' panics are no Exception
        *_, last = traceback.extract_tb(error.__traceback__)
        return f"raised {type(error).__name__}: {str(error)[:200]!r} at {Path(last.filename).name}:{last.lineno}"
    return "read"


def main(name: str, first: int, last: int, folder: Path) -> None:
    case = prepare(name, folder)
    if sys.platform.startswith("linux") and "san.so" not in os.environ.get("LD_PRELOAD", ""):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    warnings.simplefilter("ignore")
    for seed in range(first, last):
        print(json.dumps([seed, "began"]), flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        outcome = outcome_of(case, seed)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps([seed, outcome]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

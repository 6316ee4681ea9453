"""`python -m gte_sdk.cli` is `gte`, for where scripts are not on the PATH."""

from gte_sdk.cli import main

main()

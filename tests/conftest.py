"""What every test may count on, however the suite was started."""

import signal


def pytest_configure() -> None:
    # A shell starts what runs in the background with Ctrl-C ignored, and children inherit that; the tests send Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""The errors and warnings of the SDK. Every one of them says what was given, and what to do instead."""


class GteError(Exception):
    """Base of every error that gte_sdk raises on purpose.

    remedy: the parameter or operation that remedies it, for a caller that has its own words for that (gte_sdk.cli).
    """

    def __init__(self, message: str = "", *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class InputError(GteError, ValueError):
    """A value that the call cannot take: an index out of range, NaN in a vector, a wrong dimension."""


class InputTypeError(InputError, TypeError):
    """A value of the wrong type: None, bytes or a number where a text belongs, a float64 vector where float32 does."""


class ModelFormatError(GteError):
    """A model directory or index file that is missing something, damaged, or written in another format."""


class IndexFormatError(ModelFormatError):
    """A vector index or passage index that is damaged, or written in another format."""


class ModelMismatchError(GteError):
    """Vectors of one model used with an index of another."""


class DeviceError(GteError):
    """A device, or the library behind it, that is missing or cannot run the model as it was proved."""


class TruncationWarning(UserWarning):
    """A text had more tokens than the model reads; the message says how many were left out."""


class HubError(GteError):
    """A model that could not be fetched from the Hub: unknown name, no network, or offline and not in the cache."""

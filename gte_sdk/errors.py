"""The errors and warnings of the SDK. Each message says what was given and what to do instead."""


class GteError(Exception):
    """The base of every error that gte_sdk raises on purpose.

    remedy: the parameter or operation that remedies it, for a caller that has its own words for that (gte_sdk.cli).
    """

    def __init__(self, message: str = "", *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class InputError(GteError, ValueError):
    """A value that the call cannot use: a number out of range, NaN in a vector, a wrong number of dimensions."""


class InputTypeError(InputError, TypeError):
    """A value of the wrong type: None, bytes or a number instead of a text, or a float64 vector instead of float32."""


class ModelFormatError(GteError):
    """A model directory, bundle or index file that is incomplete, damaged, or written in another format."""


class IndexFormatError(ModelFormatError):
    """A vector index or passage index that is damaged, or written in another format."""


class ModelMismatchError(GteError):
    """Vectors from one model used with an index from another."""


class DeviceError(GteError):
    """A device, or its library, that is missing or does not reproduce the model's golden vectors."""


class TruncationWarning(UserWarning):
    """A text had more tokens than the model reads. The message says how many were left out."""


class HubError(GteError):
    """A model that could not be downloaded from the Hub: an unknown name, no network, or offline and not cached."""

"""The errors and warnings of the SDK. Each message says what was given and what to do instead."""

# A file may hold a number, a name or a text of megabytes, which a message quotes.
MOST_CHARACTERS = 2000


def _shortened(message: str) -> str:
    """Without its middle, where it is too long: a message begins with the path and ends with the remedy."""
    if len(message) <= MOST_CHARACTERS:
        return message
    return f"{message[: MOST_CHARACTERS - 505]} ... {message[-500:]}"


class GteError(Exception):
    """The base of every error that gte_sdk raises on purpose.

    Examples:
        >>> import gte_sdk
        >>> try:
        ...     gte_sdk.Embedder("gte-mni")
        ... except gte_sdk.GteError as error:
        ...     print(str(error).rpartition("; ")[2])
        did you mean 'gte-mini'?
    """

    def __init__(self, message: str = "", *, remedy: str | None = None) -> None:
        """Makes an error.

        Args:
            message: What was given, and what to do instead.
            remedy: The parameter or operation that remedies it, for a caller that has its own words for that
                (gte_sdk.cli).
        """
        super().__init__(_shortened(message))
        self.remedy = remedy


class InputError(GteError, ValueError):
    """A value that the call cannot use: a number out of range, NaN in a vector, a wrong number of dimensions.

    Examples:
        >>> import numpy as np
        >>> import gte_sdk
        >>> gte_sdk.top_k_cosine(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), k=4)
        Traceback (most recent call last):
            ...
        gte_sdk.errors.InputError: k=4 exceeds 3 documents
    """


class InputTypeError(InputError, TypeError):
    """A value of the wrong type: None, bytes or a number instead of a text, or a float64 vector instead of float32.

    Examples:
        >>> import gte_sdk
        >>> gte_sdk.embed(["a text", None])
        Traceback (most recent call last):
            ...
        gte_sdk.errors.InputTypeError: text 1 is a NoneType: None; give a str
    """


class ModelFormatError(GteError):
    """A model directory, bundle or index file that is incomplete, damaged, or written in another format.

    Examples:
        >>> import gte_sdk
        >>> gte_sdk.Embedder("no-such-model")
        Traceback (most recent call last):
            ...
        gte_sdk.errors.ModelFormatError: model='no-such-model' is neither a bundled model (gte-mini, gte-nano), nor ...
    """


class IndexFormatError(ModelFormatError):
    """A vector index or passage index that is damaged, or written in another format."""


class ModelMismatchError(GteError):
    """Vectors from one model used with an index from another.

    Examples:
        >>> import numpy as np
        >>> from gte_sdk import Index
        >>> Index(2, fingerprint="sha256:a").add(np.ones((1, 2), np.float32), fingerprint="sha256:b")
        Traceback (most recent call last):
            ...
        gte_sdk.errors.ModelMismatchError: vectors come from model sha256:b, the index holds vectors of sha256:a; ...
    """


class DeviceError(GteError):
    """A device, or its library, that is missing or does not reproduce the model's golden vectors.

    Examples:
        >>> import gte_sdk
        >>> try:
        ...     device = gte_sdk.Embedder(device="cuda").device
        ... except gte_sdk.DeviceError:  # onnxruntime-gpu is missing, or a GPU
        ...     device = gte_sdk.Embedder(device="cpu").device
        >>> device in ("cuda", "cpu")
        True
    """


class TruncationWarning(UserWarning):
    """A text had more tokens than the model reads. The message says how many were left out.

    Examples:
        >>> import warnings
        >>> import gte_sdk
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     vector = gte_sdk.embed("word " * 600)
        >>> print(caught[0].message)
        1 of 1 texts have more than max_tokens=512 tokens and 90 tokens were left out, ...
    """


class HubError(GteError):
    """A model that could not be downloaded from the Hub: an unknown name, no network, or offline and not cached.

    Examples:
        >>> import gte_sdk
        >>> try:
        ...     gte_sdk.Embedder("no-such-owner/no-such-model", offline=True)
        ... except gte_sdk.HubError:
        ...     print("not in the cache of this machine")
        not in the cache of this machine
    """

"""Explains the errors of the Hub's client to people."""

import contextlib


@contextlib.contextmanager
def explained(failure: str):
    """Turns whatever the Hub's client raises into a `ValueError` with advice.

    Args:
        failure: str. What could not be done, a sentence.

    Raises:
        ValueError: in place of every other exception.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except ValueError as error:
        # Errors of this package explain themselves.
        if not isinstance(error, (HfHubHTTPError, HFValidationError)) and "Received" in str(error):
            raise
        raise ValueError(_told(failure, error)) from error
    except Exception as error:  # the client lets errors of its changing HTTP libraries through
        raise ValueError(_told(failure, error)) from error


def _told(failure, error):
    return f"{failure} {_advice(error)} Received: {type(error).__name__}: {error}"


def _advice(error):
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, errors.HFValidationError):
        return "A repository is named 'organisation/name'."
    if isinstance(error, errors.GatedRepoError):
        return "The repository is gated: ask for access on its page, then log in."
    if isinstance(error, errors.RevisionNotFoundError):
        return "The repository has no such branch, tag or commit."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "The repository lacks a file of the preset."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "There is no such repository, or it is private and the token (`HF_TOKEN`, "
            "`hf auth login`) does not open it."
        )
    if status == 401:
        return "The token (`HF_TOKEN`, `hf auth login`) is missing, wrong or expired."
    if status == 403:
        return "The token does not allow this: one with write access to the repository does."
    if status in (409, 412):
        return "Somebody else changed the repository meanwhile: try again."
    if status is not None and status >= 500:
        return "The Hub has trouble: try again later."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "The Hub cannot be reached, and the cache does not hold every file."
    return "The Hub cannot be reached, or it broke off."

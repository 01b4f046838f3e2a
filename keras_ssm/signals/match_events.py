import numpy as np

from keras_ssm.checks import check_number


def match_events(found: np.ndarray, known: np.ndarray, tolerance: float) -> np.ndarray:
    """Matches events that were found with known ones.

    Each event is matched once at most. Where two events are within the tolerance of
    one, the nearer is taken. For heart beats the standard asks for a tolerance of 150 ms.

    Args:
        found: array `(events,)`. Places of the events that were found, rising.
        known: array `(events,)`. Places of the known events, rising.
        tolerance: float. Largest distance, in the same units.

    Returns:
        Int array `(pairs, 2)`: the number of a found event, and that of the known one.

    Raises:
        ValueError: for places that do not rise.

    Example:
        ```python
        pairs = keras_ssm.signals.match_events(np.array([98, 300]), np.array([100, 200]), 54)
        sensitivity, predictivity = len(pairs) / 2, len(pairs) / 2
        ```

    Reference:
        ANSI/AAMI EC57, section 4.3.
    """
    check_number("tolerance", tolerance, low=0)
    found, known = np.asarray(found), np.asarray(known)
    for name, places in (("found", found), ("known", known)):
        if places.ndim != 1 or (places[1:] < places[:-1]).any():
            raise ValueError(
                f"`{name}` must hold places in one row that rise. "
                f"Received: {name}.shape={places.shape}"
            )
    pairs, i, j = [], 0, 0
    while i < len(found) and j < len(known):
        distance = abs(found[i] - known[j])
        if distance > tolerance:
            i, j = (i + 1, j) if found[i] < known[j] else (i, j + 1)
        elif i + 1 < len(found) and abs(found[i + 1] - known[j]) < distance:
            i += 1
        elif j + 1 < len(known) and abs(found[i] - known[j + 1]) < distance:
            j += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return np.array(pairs, "int64").reshape(-1, 2)

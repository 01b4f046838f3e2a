"""Classes of heart beats."""

AAMI_CLASSES = {
    "N": "NLRej",  # normal, bundle branch blocks, escapes of atrium and node
    "S": "AaJS",  # supraventricular ectopic
    "V": "VE",  # ventricular ectopic
    "F": "F",  # fusion of a ventricular and a normal one
    "Q": "/fQ",  # paced, or unknown
}
_CLASS_OF_SYMBOL = {symbol: name for name, symbols in AAMI_CLASSES.items() for symbol in symbols}


def aami_class(symbol: str) -> str | None:
    """Returns the class of a beat by its symbol in the annotations of MIT-BIH.

    Args:
        symbol: str. One character.

    Returns:
        `"N"`, `"S"`, `"V"`, `"F"` or `"Q"`; `None` for what is no beat, such as a change of rhythm.

    Example:
        ```python
        [keras_ssm.signals.aami_class(symbol) for symbol in "LAV+"]  # N, S, V, None
        ```

    Reference:
        ANSI/AAMI EC57, table 3; P. de Chazal et al. (2004), table I.
    """
    return _CLASS_OF_SYMBOL.get(symbol)

import numpy as np


def digits(validation=False):
    """Returns the handwritten digits of scikit-learn as sequences of pixels.

    1797 images of 8 x 8 pixels with values 0 to 16, read row after row. 500 of them, a
    stratified random part with seed 0, are the test part.

    Args:
        validation: bool. If `True`, the training part alone is split, stratified with seed 0,
            and its 10 % take the place of the test part: for choosing settings.
            Defaults to `False`.

    Returns:
        Two tuples `(x, y)`, training and test: float32 `(n, 64)` and int64 `(n,)`.

    Raises:
        ImportError: if scikit-learn is not installed.

    Example:
        ```python
        (x_train, y_train), (x_test, y_test) = digits()
        assert x_train.shape == (1297, 64) and x_test.shape == (500, 64)
        ```

    Reference:
        E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits,
        UCI Machine Learning Repository, CC BY 4.0.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn: pip install 'keras-ssm[demo]'"
        ) from error

    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=500, stratify=y, random_state=0)
    if validation:
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.1, stratify=y, random_state=0)
    return (x, y), (x_test, y_test)

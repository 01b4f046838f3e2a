import pytest


@pytest.fixture
def data(tmp_path):
    """The folder of all data, with that of `tests.training.toy`."""
    (tmp_path / "data" / "toy").mkdir(parents=True)
    return tmp_path / "data"

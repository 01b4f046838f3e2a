"""Marks and fixtures are in `tests/fixtures.py`, which loads a backend."""


def pytest_configure(config):
    if not hands_out_only(config):  # such a process need not wait for a backend
        config.pluginmanager.import_plugin("tests.fixtures")


def hands_out_only(config):
    """Whether other processes, which this one starts, collect and run the tests."""
    is_worker = hasattr(config, "workerinput")
    workers = getattr(config.option, "numprocesses", None)
    return bool(workers) and not is_worker and not config.option.collectonly

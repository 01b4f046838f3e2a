import keras

from keras_ssm.callbacks import BackupAndRestore
from keras_ssm.types import PathLike


class RunState(keras.callbacks.Callback):
    """A callback with a state that a resumed run needs."""

    finished = False  # whether the run is to end before its last epoch

    def get_state(self) -> dict:
        """Returns the state, as values that JSON can hold."""
        raise NotImplementedError

    def set_state(self, state: dict) -> None:
        """Restores the state."""
        raise NotImplementedError


class RunBackup(BackupAndRestore):
    """A backup after every epoch, of the model and of callbacks, in one file.

    One file holds both, so that no interruption leaves one of them an epoch ahead.

    Args:
        directory: str or `Path`. Where the file is.
        states: dict of str to `RunState`.
        saving: bool. Whether backups are written; if not, training only starts from what is
            there. Defaults to `True`.
    """

    def __init__(
        self, directory: PathLike, states: dict[str, RunState] | None = None, saving: bool = True
    ):
        super().__init__(directory, delete_checkpoint=False)
        self.states = states or {}
        self.saving = saving

    def facts(self):
        return {
            **super().facts(),
            "states": {name: state.get_state() for name, state in self.states.items()},
        }

    def restore_facts(self, facts):
        super().restore_facts(facts)
        for name, state in self.states.items():
            state.set_state(facts["states"][name])
        if any(state.finished for state in self.states.values()):
            self.model._initial_epoch = self.params["epochs"]

    def _save_model(self):
        if self.saving:
            super()._save_model()

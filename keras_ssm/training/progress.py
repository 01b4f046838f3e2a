import sys

import keras


class Progress(keras.callbacks.Callback):
    """A bar over all steps of a training, with the loss, the scores and the time left.

    Args:
        title: str. Text before the bar.
        epochs: int. Epochs of the whole training.
    """

    def __init__(self, title: str, epochs: int):
        super().__init__()
        self.title = title
        self.epochs = epochs
        self.bar = None
        self.scores = ""

    def on_epoch_begin(self, epoch, logs=None):
        from tqdm import tqdm

        self.steps = self.params.get("steps") or 1
        if self.bar is None:
            interval = {} if sys.stderr.isatty() else {"mininterval": 30.0}  # lines in a file
            done = epoch * self.steps
            self.bar = tqdm(
                total=self.epochs * self.steps,
                initial=done,
                desc=self.title,
                unit="step",
                **interval,
            )
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._move(self.epoch * self.steps + batch + 1, logs)

    def on_epoch_end(self, epoch, logs=None):
        scores = {name: value for name, value in (logs or {}).items() if name.startswith("val_")}
        self.scores = "".join(f", {name} {value:.4g}" for name, value in scores.items())
        self._move((epoch + 1) * self.steps, logs)

    def on_train_end(self, logs=None):
        self.close()

    def close(self):
        """Leaves the bar as it stands, also where a training failed."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _move(self, step, logs):
        loss = (logs or {}).get("loss")
        text = f"epoch {self.epoch + 1}/{self.epochs}"
        text += "" if loss is None else f", loss {loss:.4g}"
        self.bar.set_postfix_str(text + self.scores, refresh=False)
        self.bar.update(step - self.bar.n)

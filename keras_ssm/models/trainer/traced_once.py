import keras
from keras import tree

from keras_ssm.keras_internals import batch_spec, build_metrics


class TracedOnce:
    """A trainer that makes its variables before its first step, which is traced twice otherwise.

    Only TensorFlow does so: it traces a step again that makes variables.
    """

    def make_train_function(self, force=False):
        """The step that trains."""
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force=force)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Keras calls this before `make_train_function`, on TensorFlow alone."""
        if self._distribute_strategy is None:
            self._build_metrics(batch_spec(iterator) if data_batch is None else data_batch)
        elif iterator is not None:
            # Keras builds with the mean of a batch over the replicas, but masks and token ids have
            # no mean. The batch of the first replica has the same shapes.
            local = self.distribute_strategy.experimental_local_results
            for _, _, steps in iterator:
                data_batch = tree.map_structure(lambda x: local(x)[0], next(steps))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _build_metrics(self, batch):
        """Makes the metrics that `compile` got by name, which the shapes of a batch decide."""
        batch = batch if isinstance(batch, tuple) else (batch,)
        y = batch[1] if len(batch) > 1 else None
        known = hasattr(y, "dtype") and getattr(y.shape, "rank", 0) is not None
        if not known or len(self.outputs) > 1:
            return
        y = keras.KerasTensor(tuple(y.shape), str(getattr(y.dtype, "name", y.dtype)))
        build_metrics(self, y, self.outputs[0])

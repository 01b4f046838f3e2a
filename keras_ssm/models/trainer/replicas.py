from keras import tree


class Replicas:
    """A trainer under a strategy of TensorFlow with several replicas."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras builds with the mean of a batch over the replicas, but masks and token ids have no
        # mean. The batch of the first replica has the same shapes.
        if iterator is not None and self._distribute_strategy is not None:
            local = self.distribute_strategy.experimental_local_results
            for _, _, steps in iterator:
                data_batch = tree.map_structure(lambda x: local(x)[0], next(steps))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

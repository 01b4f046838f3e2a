class OneDirection:
    """Refuses `keras.layers.Bidirectional` around layers and models of the family.

    It makes a copy that reads backwards (`go_backwards`), as recurrent layers can. These read both
    ways in one pass instead.
    """

    go_backwards = False

    @classmethod
    def from_config(cls, config):
        cls.refuse_backwards(config)
        return super().from_config(config)

    @classmethod
    def refuse_backwards(cls, config):
        """Raises a `ValueError` for the configuration that `keras.layers.Bidirectional` makes."""
        if "go_backwards" in config:
            raise ValueError(
                f"{cls.__name__} does not go with `keras.layers.Bidirectional`: a state-space "
                "layer reads both ways with `bidirectional=True`, such as "
                f"`S4D(bidirectional=True)`. Received: go_backwards={config['go_backwards']}"
            )

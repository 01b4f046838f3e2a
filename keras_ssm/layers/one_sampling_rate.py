class OneSamplingRate:
    """Base of the layers of `SSMLayer` that have no dt: `step_scale` is 1, and can be no other.

    A class says in `one_rate_because` why, as an error goes on after its name.
    """

    one_rate_because = "belongs to one sampling rate, and has no dt"

    def add_step_scale(self):
        """Adds nothing: there is no dt."""

    @property
    def step_scale(self):
        """1: the weights belong to the sampling rate at which they were trained."""
        return 1.0

    @step_scale.setter
    def step_scale(self, value):
        self.checked_scale(value)

    def checked_scale(self, value) -> float:
        """1, or the `ValueError` that says why there is no other."""
        try:
            is_one = float(value) == 1.0
        except (TypeError, ValueError):
            is_one = False
        if not is_one:
            raise ValueError(
                f"`step_scale` of {self.name} must be 1: a {type(self).__name__} "
                f"{self.one_rate_because}. Received: step_scale={value!r}"
            )
        return 1.0

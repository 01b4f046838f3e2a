from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_choice, check_flags, check_positive
from keras_ssm.layers import S4D, SpaceTime
from keras_ssm.models.forecasting.columns import Columns
from keras_ssm.models.forecasting.forecast_head import ForecastHead
from keras_ssm.models.forecasting.forecast_join import ForecastSum, StepsAt
from keras_ssm.models.forecasting.forecaster_checks import check_backbone, checked_quantiles
from keras_ssm.models.forecasting.forecaster_inputs import standard_inputs
from keras_ssm.models.forecasting.forecaster_training import ForecasterTraining
from keras_ssm.models.forecasting.forecaster_use import ForecasterUse
from keras_ssm.models.forecasting.linear_shortcut import LinearShortcut
from keras_ssm.models.forecasting.rollout_head import RolloutHead
from keras_ssm.models.forecasting.value_normalization import ValueNormalization
from keras_ssm.models.headed_task import saved_policy
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.ssm_task import SSMTask
from keras_ssm.types import Tensor

HEADS = ("direct", "closed_loop")
NORMALIZATIONS = ("instance", None)
STATE = {"layers", "normalization", "hidden"}
EPSILON = 1e-10  # of the running variance, in units of the training part's


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMForecaster(ForecasterUse, ForecasterTraining, SSMTask):
    """Forecasts the next rows of time series: a linear shortcut, and on it a state-space branch.

    The shortcut maps the last `lookback` values, less the last one, to the horizon. `fit` solves
    it in closed form (ridge regression). The branch reads the whole history, normalised by a
    running mean and deviation, and adds to that forecast what it has learned to add: nothing at
    first. Of all states of the weights, the one before training among them, `fit` keeps the one
    that is best on the validation part, and the shortcut alone unless training gains 1 % there. So
    the forecaster is never worse there than ridge.

    Every variable of every series is a row of its own, with the same weights. A value that is NaN
    is a masked step: the branch passes it by, and the shortcut reads the value seen last in its
    place. All that a forecast needs of the past is a state of constant size, so `update` reads
    new rows alone.

    Args:
        backbone: `keras_ssm.models.SSMBackbone` or `None`. Reads one normalised value and the
            covariates of a step: its `input_dim` is `Columns.width`. It must be causal and have
            a state. Defaults to two blocks of `S4D(state_dim=32)` of width 32.
        lookback: int. Rows that the shortcut reads. Defaults to `96`.
        horizon: int. Rows of a forecast. Defaults to `24`.
        quantiles: sequence of float or `None`. Increasing, symmetric about 0.5, which is one of
            them; trained by the pinball loss. Defaults to `None`: the mean, with intervals from
            the residuals of the validation part.
        head: str. `"direct"`: all rows of the horizon at once. `"closed_loop"`: one row, trained
            after every row and fed back; with a `decoder` all rows, by its loop. Defaults to
            `"direct"`.
        decoder: `keras_ssm.layers.SpaceTime` or `None`. For a closed loop: a layer with
            `closed_loop`, that reads what the backbone gives, predicts its own next inputs, and so
            rolls the horizon out of its state (`RolloutHead`). Defaults to `None`.
        normalization: str or `None`. `"instance"`: what the branch reads and adds is in units of
            the running deviation. `None`: of the deviation of the training part. A series that
            was not trained on, known by its name, then has units of its own: of its history in
            `predict`, of the rows before the first forecast in `backtest` and `evaluate`.
            Defaults to `"instance"`.
        target: sequence of names or `None`. Columns to forecast. Defaults to all that are no
            covariates.
        historic: sequence of names. Covariates that are known up to now.
        known: sequence of names. Covariates that are known for the horizon too.
        static: sequence of names. Covariates of a series as a whole.
        categorical: dict or `None`. Of those columns that hold categories, the name and the list
            of the values.
        train_shortcut: bool. Whether the shortcut trains with the branch. Defaults to `False`: it
            stays the solution in closed form.
        preprocessor: must be `None`; the forecaster reads tables by itself.
        fitted: dict or `None`. What `fit` found beside the weights, as the configuration keeps it.
        compile: bool. Whether the model is compiled with its defaults. Defaults to `True`.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.
        head_dtype: dtype policy of the head. Defaults to the backbone's.

    Call arguments:
        inputs: float array `(batch, length, Columns.width)`, one row for each variable: its
            values, NaN where missing, then the covariates. Or a dict of what the graph takes:
            `inputs` of the observed steps alone, their `padding_mask`, `origins`
            `(batch, places)`, how many observed steps each forecast has read, `window`
            `(batch, places, lookback)` and, with known covariates, `future`
            `(batch, places, horizon, covariates)`.
        initial_state, return_state: as in `SSMClassifier`.

    Returns:
        Forecasts `(batch, places, horizon, quantiles or 1)`; one step for a closed loop.

    Raises:
        ValueError: for sizes below 1, quantiles or a backbone that do not fit.

    Example:
        ```python
        rng = np.random.default_rng(0)
        series = np.sin(np.arange(300) / 4)[:, None] + 0.1 * rng.normal(size=(300, 2))
        model = keras_ssm.models.SSMForecaster(lookback=24, horizon=8)
        model.fit(series, validation=60, epochs=1, steps_per_epoch=5, verbose=0)
        forecast = model.predict(series)  # (8, 2)
        later = model.update(series[-1:])  # after one more row
        ```

    Reference:
        - [S4](https://arxiv.org/abs/2111.00396), section 4.4.
        - [Are transformers effective for time series forecasting?](
          https://arxiv.org/abs/2205.13504), whose linear model the shortcut is.
        - [Reversible instance normalization](https://openreview.net/forum?id=cGDAkQo1C0p).
    """

    pipeline_tag = "time-series-forecasting"
    head_size = "horizon"
    of_head = ("fitted",)
    keeps_equal_head = True

    def __init__(
        self,
        backbone: SSMBackbone | None = None,
        lookback: int = 96,
        horizon: int = 24,
        quantiles: Sequence[float] | None = None,
        head: str = "direct",
        normalization: str | None = "instance",
        target: Sequence | None = None,
        historic: Sequence = (),
        known: Sequence = (),
        static: Sequence = (),
        categorical: Mapping | None = None,
        train_shortcut: bool = False,
        preprocessor: Callable | None = None,
        fitted: dict | None = None,
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
        decoder: SpaceTime | dict | None = None,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None = None,
    ):
        lookback, horizon = check_positive(lookback=lookback, horizon=horizon)
        check_choice("head", head, HEADS)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_flags(train_shortcut=train_shortcut, trainable=trainable)
        if preprocessor is not None:
            raise ValueError(
                "`preprocessor` of a forecaster must be None: it reads tables by itself. "
                f"Received: preprocessor={preprocessor!r}"
            )
        columns = Columns(target, historic, known, static, categorical)
        if backbone is None:
            backbone = SSMBackbone(
                S4D(state_dim=32),
                num_layers=2,
                hidden_dim=32,
                input_dim=columns.width,
                prenorm=True,
                final_norm="layer",
                dropout=0.1,
            )
        check_backbone(backbone, columns.width)
        self.feeds_back = head == "closed_loop" and decoder is None
        quantiles = checked_quantiles(quantiles, self.feeds_back)
        if decoder is not None and head != "closed_loop":
            raise ValueError(
                f"A `decoder` needs head='closed_loop'. Received: head={head!r}, with a decoder"
            )

        # === Layers ===
        policy = backbone.dtype_policy
        steps = 1 if self.feeds_back else horizon
        self.backbone = backbone
        self.preprocessor = None
        self.shortcut = LinearShortcut(steps, dtype=policy, name="shortcut")
        self.shortcut.trainable = train_shortcut
        self.head_dtype = None if head_dtype is None else keras.dtype_policies.get(head_dtype)
        sizes = {"steps": steps, "outputs": len(quantiles or (0.5,))}
        sizes |= {"dtype": policy, "dense_dtype": self.head_dtype, "name": "head"}
        if decoder is None:
            self.head_layer = ForecastHead(**sizes)
        else:
            self.head_layer = RolloutHead(decoder, **sizes)
        self.running = None
        if normalization is not None:
            span = max(2, lookback)
            self.running = ValueNormalization(span, EPSILON, dtype=policy, name="normalization")
        self.steps_at = StepsAt(dtype=policy, name="steps_at")
        self.deviation_at = StepsAt(dtype=policy, name="deviation_at")
        self.sum_layer = ForecastSum(dtype=policy, name="forecast")

        # === Functional Model ===
        wide = "float64" if policy.variable_dtype == "float64" else "float32"
        inputs = {
            "inputs": keras.Input((None, columns.width), dtype=wide, name="inputs"),
            "padding_mask": keras.Input((None,), dtype="bool", name="padding_mask"),
            "origins": keras.Input((None,), dtype="int32", name="origins"),
            "window": keras.Input((None, lookback), dtype=wide, name="window"),
        }
        if columns.future:
            shape = (None, steps, columns.future)
            inputs["future"] = keras.Input(shape, dtype=wide, name="future")
        outputs = self.run(inputs)
        super().__init__(inputs=inputs, outputs=outputs, compile=False, name=name)

        # === Config ===
        self.lookback = lookback
        self.horizon = horizon
        self.quantiles = quantiles
        self.head = head
        self.normalization = normalization
        self.columns = columns
        self._fitted = None if fitted is None else dict(fitted)
        self._memory = None
        if compile:
            self.compile()
        if not trainable:
            self.trainable = False  # reaches the layers only now
        self.complete()

    def run(self, inputs, training=None, initial_state=None, return_state=False):
        """The graph, and beside it what a graph does not know: states."""
        context = {} if training is None else {"training": training}
        x, mask, counts = inputs["inputs"], inputs["padding_mask"], inputs["origins"]
        stateful = return_state or initial_state is not None
        if stateful and initial_state is None:
            initial_state = self.get_initial_state(ops.shape(x)[0])
        before = initial_state or {}
        deviation = state = None
        if self.running is not None:
            first = None
            if stateful:
                sums = {k: ops.convert_to_tensor(v) for k, v in before["normalization"].items()}
                first = self.running.deviation(sums["weight"], sums["squares"])
                (x, deviation), state = self.running(
                    x, mask=mask, initial_state=sums, return_state=True
                )
            else:
                x, deviation = self.running(x, mask=mask)
            deviation = self.deviation_at(deviation, counts, first)
        read = {"inputs": x, "padding_mask": mask}
        if stateful:
            hidden, layers = self.backbone(
                read, initial_state=before["layers"], return_state=True, **context
            )
        else:
            hidden = self.backbone(read, **context)
        if self.decoder is None:
            at = self.steps_at(hidden, counts, before.get("hidden"))
            added = self.head_layer(at, inputs.get("future"))
        else:
            added = self.head_layer(hidden, counts, before.get("hidden"), inputs.get("future"))
        y = self.sum_layer(self.shortcut(inputs["window"]), added, deviation)
        if not return_state:
            return y
        steps = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
        at = self.steps_at if self.decoder is None else self.decoder.states_after
        last = at(hidden, steps, before["hidden"])[:, 0]
        following = {"layers": layers, "hidden": ops.cast(last, self._hidden_dtype())}
        following["normalization"] = state if state is not None else before["normalization"]
        return y, following

    @property
    def decoder(self) -> SpaceTime | None:
        """The layer whose loop makes the horizon, if there is one."""
        return getattr(self.head_layer, "decoder", None)

    def standardize(self, inputs: Tensor | dict) -> dict[str, Tensor]:
        """Brings arrays `(batch, length, width)` to what the graph takes; see the class."""
        return standard_inputs(self, inputs)

    # States

    def check_state(self, initial_state, return_state):
        """Raises a `ValueError` for a state of another structure."""
        if initial_state is None:
            return
        if not isinstance(initial_state, dict) or set(initial_state) != STATE:
            raise ValueError(
                "`initial_state` must be what `get_initial_state` or a call with `return_state` "
                f"gave. Received: {type(initial_state).__name__}"
            )
        self.backbone.check_state(initial_state["layers"], return_state)

    def state_spec(self, batch):
        """The state of `batch` rows as symbolic tensors."""
        hidden = (batch, *self._hidden_shape())
        return {
            "layers": self.backbone.state_spec(batch),
            "normalization": {} if self.running is None else self.running.state_spec(batch),
            "hidden": keras.KerasTensor(hidden, dtype=self._hidden_dtype()),
        }

    def get_initial_state(self, batch_size: int | Tensor) -> dict:
        """Returns the state of the graph before the first row, for `batch_size` rows."""
        hidden = (batch_size, *self._hidden_shape())
        return {
            "layers": self.backbone.get_initial_state(batch_size),
            "normalization": {}
            if self.running is None
            else self.running.get_initial_state(batch_size),
            "hidden": ops.zeros(hidden, dtype=self._hidden_dtype()),
        }

    def _hidden_shape(self):
        """What is kept beside the states of the layers: the last features, or a decoder's state."""
        width = self.backbone.hidden_dim
        return (width,) if self.decoder is None else self.decoder.state_shape(width)

    def _hidden_dtype(self):
        if self.decoder is not None:
            return self.decoder.system_dtype
        return "float64" if self.backbone.compute_dtype == "float64" else "float32"

    # Saving

    def sample_inputs(self):
        """Returns a short, fixed input of one row."""
        rng = np.random.default_rng(0)
        return rng.standard_normal((1, 16, self.columns.width)).astype("float32")

    def sample_outputs(self, inputs):
        """At most 64 numbers of the forecast, in place of thousands in a `preset.json`."""
        y = self(inputs)
        return y[:, :, :: -(-y.shape[2] // 64)]

    def get_config(self):
        head_dtype = saved_policy(self.head_layer.output_dense, self.head_dtype)
        return {
            **super().get_config(),
            "lookback": self.lookback,
            "horizon": self.horizon,
            "quantiles": None if self.quantiles is None else list(self.quantiles),
            "head": self.head,
            "normalization": self.normalization,
            **self.columns.get_config(),
            "train_shortcut": self.shortcut_trains,
            "fitted": self._fitted,
            **({} if self.decoder is None else {"decoder": self.head_layer.decoder_config}),
            **({} if head_dtype is None else {"head_dtype": head_dtype}),
        }

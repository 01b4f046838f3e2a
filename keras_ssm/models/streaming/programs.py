"""The compiled programs of the streams of a model: a single step, and a piece of a few lengths."""

import contextlib

import keras
from keras import ops, tree

from keras_ssm.models.trainer.turns import turn
from keras_ssm.ops import backend
from keras_ssm.types import State, Tensor

SHORTEST, LONGEST = 8, 2048  # steps of the pieces that programs are compiled for, powers of two


class StreamPrograms:
    """Shared by all streams of a model: its programs, and the systems that its steps take.

    A step takes discrete systems that were computed beforehand, and computes them anew when the
    weights have changed since. A piece computes its own.

    Args:
        task: the task model.
    """

    def __init__(self, task):
        self.task = task
        eager = bool(task.run_eagerly)
        self.compiles = backend.uses_xla() and not eager
        self.pads = self.compiles and task.backbone.mask_inputs
        self.in_pieces = task.reads_pieces
        mixers = [block.mixer for block in task.backbone.blocks]
        lengths = [getattr(mixer, "softmax_length", None) for mixer in mixers]
        self.longest = min((n for n in lengths if n is not None), default=None)
        self._layers = [
            layer
            for layer in task._flatten_layers(include_self=False)
            if hasattr(layer, "lora_enabled")
        ]
        self._form = self._form_now()
        self._variables = task.variables
        fixed = [mixer for mixer in mixers if mixer.has_system]
        sources = [variable for mixer in fixed for variable in mixer.variables]
        self._step = backend.step_program(
            self._one_step, task.discretize, self._variables, sources, eager
        )
        self._piece = backend.program(self._one_piece, self._variables, task.jit_compile, eager)

    @classmethod
    def of(cls, task):
        """The programs of a model: the former ones, if they still fit its weights."""
        programs = vars(task).get("_stream_programs")
        if programs is None or not programs.fit():
            # In `vars`, which hides it from the tracking of Keras.
            programs = vars(task)["_stream_programs"] = cls(task)
        return programs

    def fit(self):
        """Whether the model has the same weights, whatever their values: none was quantised."""
        return self._form == self._form_now()

    def _form_now(self):
        return [(layer.quantization_mode, layer.lora_enabled) for layer in self._layers]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The outputs after one more sample `(batch, ...)`, and the state after it."""
        return self._run(self._step, x, state)

    def piece(self, inputs: dict, state: State) -> tuple[Tensor, State]:
        """The outputs after each step of a piece, `(batch, steps, ...)`, and the state after it."""
        return self._run(self._piece, inputs, state)

    def size_for(self, steps: int) -> int:
        """The length of the next piece of so many steps: more with padding, or less of them."""
        longest = LONGEST if self.longest is None else min(LONGEST, self.longest)
        steps = min(steps, longest)
        if self.pads:
            return min(max(SHORTEST, 1 << (steps - 1).bit_length()), longest)
        if self.compiles:  # lengths without padding, and few of them
            return 1 << (steps.bit_length() - 1)
        return steps

    def _run(self, program, *arguments):
        try:
            return program(*arguments)
        except Exception:
            if not backend.were_given_away(self._variables):
                raise
        with turn(self.task):  # waits until the trainer has returned the weights
            self.task.jax_state_sync()
            return program(*arguments)

    def _one_step(self, weights, systems, x, state):
        with self._values(weights):
            y, following = self.task.step(x, state, systems)
        return y, tree.map_structure(_like, following, state)

    def _one_piece(self, weights, inputs, state):
        with self._values(weights):
            y, following = self.task.read_piece(inputs, state)
        return y, tree.map_structure(_like, following, state)

    def _values(self, weights):
        """A scope in which the weights have these values, if a backend needs one."""
        if weights is None:
            return contextlib.nullcontext()
        return keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True)))


def _like(new, old):
    """A state in the dtype of the one before, so that no program is compiled twice."""
    return ops.cast(new, old.dtype)

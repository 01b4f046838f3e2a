"""What differs between backends, for the one that runs.

`default.py` has every name, what it means, and what holds where a backend says nothing. The folder
of a backend overrides it.
"""

import keras

from keras_ssm.ops.backend.default import *  # noqa: F403

if keras.config.backend() == "jax":
    from keras_ssm.ops.backend.jax import *  # noqa: F403
elif keras.config.backend() == "tensorflow":
    from keras_ssm.ops.backend.tensorflow import *  # noqa: F403
elif keras.config.backend() == "torch":
    from keras_ssm.ops.backend.torch import *  # noqa: F403
else:
    raise ImportError(
        "`KERAS_BACKEND` must be jax, tensorflow or torch. "
        f"Received: KERAS_BACKEND={keras.config.backend()!r}"
    )

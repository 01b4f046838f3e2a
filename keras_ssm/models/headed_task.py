from collections.abc import Callable

import keras
from keras_hub.tokenizers import Tokenizer

from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.ssm_task import SSMTask


class HeadedTask(SSMTask):
    """Base class of the tasks with a layer `head`, which has a dtype policy of its own.

    Args:
        inputs, outputs: symbolic tensors of the functional model.
        **kwargs: `compile`, `name`, `trainable`.
    """

    reads_images = False  # or videos, with more than one axis between batch and features

    def set_parts(
        self,
        backbone: SSMBackbone,
        preprocessor: Callable | None,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None,
    ) -> None:
        """Checks the backbone and keeps it, the preprocessor, and the dtype policy of the head."""
        if not isinstance(backbone, SSMBackbone):
            raise ValueError(f"`backbone` must be an `SSMBackbone`. Received: {backbone!r}")
        if (backbone.axes > 1) != self.reads_images:
            kinds = ("images", "`S4ND`") if self.reads_images else ("sequences", "`S4D`")
            raise ValueError(
                f"`backbone` must read {kinds[0]}, with a mixer such as {kinds[1]}: a "
                f"{type(self).__name__} does. Received: a backbone of "
                f"{type(backbone.blocks[0].mixer).__name__}"
            )
        reads = callable(preprocessor) or hasattr(preprocessor, "generate_preprocess")
        if preprocessor is not None and (not reads or isinstance(preprocessor, Tokenizer)):
            raise ValueError(
                "`preprocessor` must be a callable that makes inputs, or None; a tokenizer goes "
                f"into one such as `SSMCausalLMPreprocessor`. Received: {preprocessor!r}"
            )
        policy = backbone.dtype_policy
        self.head_policy = policy if head_dtype is None else keras.dtype_policies.get(head_dtype)
        self.head_dtype = None if head_dtype is None else self.head_policy
        self.backbone = backbone
        self.preprocessor = preprocessor

    def get_config(self):
        return {**super().get_config(), "head_dtype": saved_policy(self.head, self.head_dtype)}


def saved_policy(head, policy):
    """What a configuration says of the dtype policy of a head: the given one, or eight bits."""
    if head is not None and head.quantization_mode is not None:
        policy = head.dtype_policy
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            policy = policy[head.path]
    return None if policy is None else keras.dtype_policies.serialize(policy)

"""Publishing: the model card of a preset, and its way to the Hugging Face Hub."""

from keras_ssm.hub.model_card import card
from keras_ssm.hub.publication import Publication
from keras_ssm.hub.publishing import publish

__all__ = ["Publication", "card", "publish"]

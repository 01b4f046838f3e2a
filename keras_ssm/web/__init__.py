"""A page in the browser where presets read what a person draws, says, or has in a table."""

from keras_ssm.web.choice import choices
from keras_ssm.web.drawing import to_pixels, watch
from keras_ssm.web.page import page, serve
from keras_ssm.web.publishing import publish_space
from keras_ssm.web.sound import hear, prepared
from keras_ssm.web.space import write_space
from keras_ssm.web.table import forecast_table, read_table

__all__ = [
    "choices",
    "forecast_table",
    "hear",
    "page",
    "prepared",
    "publish_space",
    "read_table",
    "serve",
    "to_pixels",
    "watch",
    "write_space",
]

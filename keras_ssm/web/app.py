"""The page of `keras-ssm demo --web`: the file that a Hugging Face Space runs."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_ssm import web

if __name__ == "__main__":
    web.serve()

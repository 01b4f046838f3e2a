"""Claims of papers, repeated: trainings, scores, and the pictures of what came out."""

from keras_ssm.experiments.direct_block import DirectBlock
from keras_ssm.experiments.fourier_noise import (
    NoisyMixer,
    set_fourier_noise,
    time_steps,
    with_fourier_noise,
)
from keras_ssm.experiments.pictures import (
    plot_heard_waves,
    plot_playback_rate,
    plot_ptd_noise,
)
from keras_ssm.experiments.playback_rate import playback_rate
from keras_ssm.experiments.ptd_experiment import FORMS, frequencies, ptd_noise, summary
from keras_ssm.experiments.ptd_recipe import PTDNoise
from keras_ssm.experiments.untrained import heard_waves

__all__ = [
    "FORMS",
    "DirectBlock",
    "NoisyMixer",
    "PTDNoise",
    "frequencies",
    "heard_waves",
    "playback_rate",
    "plot_heard_waves",
    "plot_playback_rate",
    "plot_ptd_noise",
    "ptd_noise",
    "set_fourier_noise",
    "summary",
    "time_steps",
    "with_fourier_noise",
]

import numpy as np

from keras_ssm.training.beat_events import Beats


class PanTompkins:
    """Finds heart beats in one lead by filters and a threshold that follows them.

    The lead passes a band of 5 to 15 Hz, is differentiated, squared and averaged over 150 ms. A
    beat is where that exceeds a threshold between the levels of beats and of noise, and it is
    decided where it has fallen to half its peak. Nothing later is looked at and nothing learned,
    but for the levels at the beginning, which are those of the first two seconds.

    Args:
        rate: float. Samples a second.

    Call arguments:
        lead: float array `(length,)`.

    Returns:
        `Beats`, all of class 1.

    Example:
        ```python
        lead = np.zeros(3600)
        lead[360::360] = 1.0
        beats = keras_ssm.training.PanTompkins(360)(lead)
        ```

    Reference:
        J. Pan and W. Tompkins (1985), A Real-Time QRS Detection Algorithm, without its search
        back and its tests for T waves.
    """

    def __init__(self, rate: float):
        from scipy.signal import butter

        self.rate = rate
        self.band = butter(2, [5.0, 15.0], btype="bandpass", fs=rate, output="sos")
        pulse = np.zeros(2 * round(rate))
        pulse[round(rate)] = 1.0
        self.delay = int(self.energy(pulse).argmax()) - round(rate)

    def count_params(self) -> int:
        """Number of weights."""
        return 0

    def energy(self, lead: np.ndarray) -> np.ndarray:
        """Returns the mean square of the slopes of the last 150 ms."""
        from scipy.signal import lfilter, sosfilt

        slopes = np.diff(sosfilt(self.band, lead), prepend=0.0)
        width = round(0.15 * self.rate)
        return lfilter(np.ones(width) / width, [1.0], slopes**2)

    def __call__(self, lead: np.ndarray) -> Beats:
        energy = self.energy(np.asarray(lead, "float64"))
        start = energy[: 2 * round(self.rate)]
        beat, noise = float(start.max(initial=0.0)), float(start.mean()) if len(start) else 0.0
        refractory, noise_rate = round(0.2 * self.rate), 1.0 / self.rate
        beats, i, values = [], 0, energy.tolist()
        while i < len(values):
            if values[i] <= noise + 0.25 * (beat - noise):
                noise += noise_rate * (values[i] - noise)
                i += 1
                continue
            peak = i
            while i < len(values) and values[i] >= values[peak] / 2:
                peak = i if values[i] > values[peak] else peak
                i += 1
            beats.append((peak - self.delay, min(i, len(values) - 1)))
            beat += 0.125 * (values[peak] - beat)
            i = max(i, peak + refractory)
        places, decided = np.array(beats, "int64").reshape(-1, 2).T
        return Beats(places, np.ones_like(places), decided)

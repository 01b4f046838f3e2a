"""Listens to a microphone, or to a sound file as if it came from one, and says what it hears.

    python examples/microphone.py --preset out/spoken_digits --file words.wav
    python examples/microphone.py --preset out/spoken_digits  # after `pip install sounddevice`

The preset is a classifier of short sounds, such as spoken digits. Blocks of some milliseconds come
in. A `Detector` watches how loud they are: where one begins to be, the stream of the model begins
anew, and where it ends, the answer stands. Nothing is recorded, and no sound is read twice.
"""

import argparse
import csv
import wave
from pathlib import Path

import keras
import numpy as np

import keras_ssm


def from_file(path, rate, size):
    """Blocks of a WAV file of 16 bits; of several channels the mean."""
    with wave.open(str(path)) as file:
        if file.getframerate() != rate or file.getsampwidth() != 2:
            raise SystemExit(
                f"{path} has {file.getframerate()} samples a second of {8 * file.getsampwidth()} "
                f"bits; the model reads {rate} of 16 bits. Convert it first, for example by "
                f"`ffmpeg -i {path} -ar {rate} -sample_fmt s16 converted.wav`."
            )
        while data := file.readframes(size):
            frames = np.frombuffer(data, "<i2").reshape(-1, file.getnchannels())
            yield frames.mean(axis=1).astype("int16")


def from_microphone(rate, size):
    """Blocks of the default microphone, without an end."""
    try:
        import sounddevice
    except ImportError:
        raise SystemExit(
            "The microphone needs `pip install sounddevice`; or pass --file."
        ) from None
    with sounddevice.InputStream(rate, size, channels=1, dtype="int16") as source:
        while True:
            yield source.read(size)[0][:, 0]


def listen(model, blocks, on, off):
    """Yields `(start, end, probabilities)` of each sound, in samples, when it has ended."""
    stream = model.stream()
    detector = keras_ssm.models.Detector(on=on, off=off)
    before, read, start, logits = np.zeros(0, "int16"), 0, 0, None
    for block in blocks:
        loudness = np.sqrt(np.mean((block / 32768.0) ** 2))
        was_loud = bool(detector.active)
        ended = detector([loudness])
        if ended:
            yield start, read, softmax(logits)
        elif detector.active:
            if not was_loud:  # with the block before, since sounds begin softly
                stream.reset()
                start = read - len(before)
                logits = stream(before)
            logits = stream(block)[0, -1]
        before, read = block, read + len(block)
    if detector.finish():
        yield start, read, softmax(logits)


def softmax(logits):
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="out/spoken_digits", help="name or directory")
    parser.add_argument("--file", type=Path, help="WAV file of 16 bits, in place of the microphone")
    parser.add_argument("--rate", type=int, default=8000, help="samples a second (%(default)s)")
    parser.add_argument("--block", type=int, default=20, help="milliseconds (%(default)s)")
    parser.add_argument("--on", type=float, default=0.03, help="loudness of a beginning, 0 to 1")
    parser.add_argument("--off", type=float, default=0.01, help="loudness of an end")
    parser.add_argument("--shortest", type=int, default=100, help="milliseconds of a sound")
    parser.add_argument("--out", type=Path, default=Path("out/heard.csv"), help="what was heard")
    args = parser.parse_args()

    model = keras_ssm.models.SSMClassifier.from_preset(args.preset)
    rate = getattr(model.preprocessor, "sampling_rate", None) or args.rate
    size = max(1, rate * args.block // 1000)
    names = getattr(model, "class_names", None) or [str(i) for i in range(model.num_classes)]
    blocks = from_microphone(rate, size)
    if args.file is not None:
        blocks = from_file(args.file, rate, size)
    else:
        print("Listening; Ctrl-C ends.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["start", "end", "class", "probability"])
        try:
            for start, end, found in listen(model, blocks, args.on, args.off):
                if end - start < rate * args.shortest / 1000:
                    continue
                best = int(found.argmax())
                print(
                    f"{start / rate:.2f} s to {end / rate:.2f} s: {names[best]}, {found[best]:.0%}"
                )
                table.writerow([start, end, names[best], float(found[best])])
        except KeyboardInterrupt:
            print(f"What was heard is in {args.out}.")


if __name__ == "__main__":
    main()

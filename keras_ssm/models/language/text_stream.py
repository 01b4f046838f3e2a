"""Text from tokens that come one after another."""

import re

import numpy as np

LONGEST_WINDOW = 16
IN_CHARACTER = 4  # tokens that one character of UTF-8 can be split over

# The text of incomplete bytes at the end, for each value of a tokenizer's `errors`.
OPEN_END = re.compile(r"(?:\ufffd|[\udc80-\udcff]{1,3}|(?:\\x[89a-f][0-9a-f]){1,3})\Z")


class TextStream:
    """The text of one row. Bytes of a character that is not complete are held back.

    The pieces together are the text of all tokens, which are decoded a few at a time.

    Args:
        decode: function from a list of ids to a text.
        stops: list of str. The text ends before the first of them that appears in it.
        window: tuple of the last ids and how many characters of their text were given, where
            the text goes on from an earlier one.
    """

    def __init__(self, decode, stops=(), window=((), 0)):
        self.decode = decode
        self.ids, self.given = list(window[0]), window[1]
        self.stops = StopStrings(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self.stops.found

    @property
    def window(self):
        """What a stream that goes on after this one starts from."""
        return [int(i) for i in self.ids], self.given

    def prompt(self, ids):
        """The text of a prompt, which is whole and has no stop strings."""
        return self._new(ids) + self._open_end() if len(ids) else ""

    def feed(self, ids):
        """The text that is certain after these tokens as well."""
        return self.stops.feed(self._new(ids))

    def end(self, whole):
        """The rest; with `whole` also of a character that is not complete."""
        if self.stopped:
            return ""
        rest = self.stops.feed(self._open_end()) if whole else ""
        return rest if self.stopped else rest + self.stops.held

    def _text(self, ids):
        return self.decode(ids) if len(ids) else ""

    def _new(self, ids):
        self.ids.extend(ids)
        try:
            text = self._text(self.ids)
        except ValueError:  # the tokenizer refuses incomplete characters
            return ""
        stable = len(text) if (end := OPEN_END.search(text)) is None else end.start()
        piece = text[self.given : stable]
        self.given = max(self.given, stable)
        self._shorten(text)
        return piece

    def _open_end(self):
        text = self._text(self.ids)
        piece = text[self.given :]
        self.given = len(text)
        return piece

    def _shorten(self, text):
        """Forgets tokens whose text no later one changes."""
        if len(self.ids) <= LONGEST_WINDOW:
            return
        waiting = len(text) - self.given
        for start in range(len(self.ids) - IN_CHARACTER, len(self.ids) - 2 * IN_CHARACTER, -1):
            try:
                tail = self._text(self.ids[start:])
            except ValueError:
                continue
            # Inside a character, the tail begins with other text.
            if len(tail) >= waiting and text.endswith(tail):
                self.ids, self.given = self.ids[start:], len(tail) - waiting
                return


class StopStrings:
    """Finds the first of some strings in a text that comes in pieces.

    Args:
        strings: list of str.
    """

    def __init__(self, strings):
        self.strings = tuple(strings)
        self.held = ""
        self.found = False

    def feed(self, piece):
        """The text that belongs to no stop string, and cannot come to do so."""
        if not self.strings:
            return piece
        if self.found:
            return ""
        text = self.held + piece
        places = [(i + len(s), i) for s in self.strings if (i := text.find(s)) >= 0]
        if places:
            self.found, self.held = True, ""
            return text[: min(places)[1]]
        longest = max(
            (n for s in self.strings for n in range(1, len(s)) if text.endswith(s[:n])), default=0
        )
        self.held = text[len(text) - longest :]
        return text[: len(text) - longest]


def decoder(preprocessor):
    """A function from a list of ids to their text, by a preprocessor of keras_hub's contract."""

    def decode(ids):
        ids = np.asarray(ids, "int32")[None]
        inputs = {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}
        (text,) = preprocessor.generate_postprocess(inputs)
        return text.decode("utf-8") if isinstance(text, bytes) else str(text)

    return decode

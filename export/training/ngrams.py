"""The next character by counting: the baseline of `export.training.char_lstm`."""

import math
from collections import Counter, defaultdict


class NGrams:
    """Counts of a text's n-grams, interpolated from the order `order` down to a uniform distribution.

    An order is trusted the more, the fewer different characters followed its context (Witten and Bell, The
    zero-frequency problem, IEEE Transactions on Information Theory 37(4), 1991).

    Args:
        text: to count.
        order: length of the longest n-grams: 5 predicts from the four characters before.
        characters: how many different ones there are.
    """

    def __init__(self, text: str, order: int = 5, characters: int = 128) -> None:
        self._order, self._uniform = order, 1 / characters
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for length in range(order):
            for at in range(length, len(text)):
                self._counts[text[at - length : at]][text[at]] += 1
        self._totals = {context: counts.total() for context, counts in self._counts.items()}

    def probability(self, context: str, character: str) -> float:
        """Return the probability of a character after a context, of which the last `order` - 1 characters count."""
        found = self._uniform
        for length in range(min(self._order - 1, len(context)) + 1):
            before = context[len(context) - length :]
            if before not in self._totals:
                break
            counts, total = self._counts[before], self._totals[before]
            found = (counts[character] + len(counts) * found) / (total + len(counts))
        return found

    def bits(self, text: str) -> float:
        """Return the mean number of bits per character of a text, the first one included."""
        reach = self._order - 1
        return -sum(
            math.log2(self.probability(text[max(0, at - reach) : at], text[at])) for at in range(len(text))
        ) / len(text)

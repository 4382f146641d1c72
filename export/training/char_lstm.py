"""Trains the character LSTM on ten plays of Shakespeare: `python -m export.training.char_lstm --help`.

The Tempest is not trained on. On it, the network is compared with n-grams counted in the same ten plays. Nothing is
chosen by looking at it: the weights are a moving average, taken after the last epoch.
"""

import math
import time
from pathlib import Path

import click
import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by

from export.families.char_lstm import CODES, HIDDEN, CharLstm, encode
from export.training.ngrams import NGrams
from export.training.saving import descend, fix_seeds, moving_average, out_option, save
from zoo.catalog import dataset

HELD_OUT = "tempest"
_STREAMS, _STEPS = 64, 64  # places of the text that are read at once, and the characters before a step of the optimiser


def read_plays() -> tuple[str, str]:
    """Fetch the plays, and return the text to train on and the one that is held out.

    Raises:
        SourceError: they cannot be fetched.
    """
    plays = {name: path.read_text("ascii") for name, path in dataset("shakespeare").items()}
    held_out = plays.pop(HELD_OUT)
    return "\n\n".join(plays.values()), held_out


def bits_per_character(network: CharLstm, text: str) -> float:
    """Return the mean number of bits per character that the network, in eval mode, needs for a text after a space."""
    codes = torch.from_numpy(encode(f" {text}").copy())[None]
    state, nats = torch.zeros(1, 2, HIDDEN), 0.0
    with torch.inference_mode():
        for before, after in zip(torch.split(codes[:, :-1], 1000, 1), torch.split(codes[:, 1:], 1000, 1), strict=True):
            logits, state = network.logits(before, state)
            nats += F.cross_entropy(logits[0], after[0].long(), reduction="sum").item()
    return nats / math.log(2) / len(text)


def continued(network: CharLstm, text: str, length: int, random: torch.Generator) -> str:
    """Return a text that the network, in eval mode, writes after `text`."""
    state, written = torch.zeros(1, 2, HIDDEN), text
    codes = torch.from_numpy(encode(text).copy())[None]
    with torch.inference_mode():
        for _ in range(length):
            answer = network(codes, state)
            codes, state = torch.multinomial(answer["probabilities"], 1, generator=random), answer["next_state"]
            written += chr(int(codes))
    return written


@click.command()
@out_option("char_lstm")
@click.option("--epochs", type=click.IntRange(1), default=12, show_default=True, help="Passes over the plays.")
@click.option("--learning-rate", default=0.006, show_default=True, help="Peak of the one-cycle schedule.")
@click.option("--seed", default=0, show_default=True, help="Of everything that is random.")
def main(out: Path, epochs: int, learning_rate: float, seed: int) -> None:
    """Train on ten plays, and count the bits per character of an eleventh, beside n-grams of order 5."""
    random = fix_seeds(seed)
    text, held_out = read_plays()
    began = time.monotonic()
    baseline = NGrams(text).bits(held_out)
    click.echo(f"{len(text):,} characters; n-grams of order 5: {baseline:.3f} bits per character of {HELD_OUT}")
    network = CharLstm()
    average = moving_average(network, 0.995)
    codes = torch.from_numpy(encode(text).copy())
    length = (len(codes) - 1) // _STREAMS
    steps = length // _STEPS
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps, pct_start=0.1)
    for epoch in range(1, epochs + 1):
        network.train()
        losses = 0.0
        # The text goes round, and each epoch cuts it into streams elsewhere.
        turned = codes.roll(-int(torch.randint(len(codes), (1,), generator=random)))
        before = turned[: _STREAMS * length].view(_STREAMS, length)
        after = turned[1 : _STREAMS * length + 1].view(_STREAMS, length).long()
        state = torch.zeros(_STREAMS, 2, HIDDEN)
        for step in range(steps):
            part = slice(step * _STEPS, (step + 1) * _STEPS)
            logits, state = network.logits(before[:, part], state.detach())
            loss = F.cross_entropy(logits.reshape(-1, CODES), after[:, part].reshape(-1))
            descend(loss, network, optimiser, schedule, average, longest=1.0)
            losses += loss.item()
        click.echo(f"epoch {epoch}/{epochs}: {losses / steps / math.log(2):.3f} bits per character of the ten plays")
    average.eval()
    trained = average.module
    assert isinstance(trained, CharLstm)  # noqa: S101 - it is a copy of `network`
    measured = {"bits_per_character": bits_per_character(trained, held_out), "ngram_bits_per_character": baseline}
    save(trained, out, "char_lstm", measured)
    minutes = (time.monotonic() - began) / 60
    click.echo(
        f"{out}: {measured['bits_per_character']:.3f} bits per character of {HELD_OUT} (n-grams: {baseline:.3f}) after "
        f"{minutes:.1f} minutes\n{continued(trained, 'PROSPERO.', 300, random)}"
    )


if __name__ == "__main__":
    main()

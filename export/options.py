"""The options of a family's cards, typed: a misspelt one is refused, and does not pass as one that was left out.

A family whose cards have options has a struct `Options`; `export.build` checks a card before the family sees it.
"""

import difflib
from types import ModuleType

import msgspec
from msgspec import Struct

from zoo.errors import ExportError
from zoo.model_card import AnyCard


class FamilyOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """No options: a family that has some says so in a subclass called `Options`."""


def check_options(card: AnyCard, family: ModuleType) -> None:
    """Check a card's options against those that its family has.

    Raises:
        ExportError: naming the option, what is expected, and the one that is perhaps meant.
    """
    kind: type[FamilyOptions] = getattr(family, "Options", FamilyOptions)
    known = [field.name for field in msgspec.structs.fields(kind)]
    for name in sorted(card.options.keys() - set(known)):
        near = difflib.get_close_matches(name, known, 1)
        meant = f"; is `{near[0]}` meant?" if near else ""
        has = f"the options {', '.join(known)}" if known else "no options"
        raise ExportError(f"{card.name}: there is no option {name!r}: the family `{card.family}` has {has}{meant}")
    try:
        msgspec.convert(card.options, kind)
    except msgspec.ValidationError as error:
        raise ExportError(f"{card.name}: the card's `options` {card.options}: {error}") from error

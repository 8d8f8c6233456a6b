"""Options behind a network's name, `deeplabv3-50,output_stride=8,multi_grid=1.2.1`.

They are part of the name, so that a checkpoint and a package say them, too. A family lists its own by name, each with a
function that reads the value and raises ValueError for one that cannot be.
"""

from collections.abc import Callable, Mapping

from splitmerge.errors import InputError

__all__ = ["Options", "integers", "one_of", "one_word", "options_from_text", "yes_or_no"]

Options = Mapping[str, Callable[[str], object]]


def one_of(*numbers: int) -> Callable[[str], int]:
    """A reader of one of these whole numbers."""

    def read(text: str) -> int:
        if int(text) not in numbers:
            raise ValueError(f"choose one of {', '.join(map(str, numbers))}")
        return int(text)

    return read


def integers(text: str) -> tuple[int, ...]:
    """Reads `1.2.4`: whole numbers with dots between them."""
    return tuple(map(int, text.split(".")))


def one_word(*words: str) -> Callable[[str], str]:
    """A reader of one of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"choose one of {', '.join(words)}")
        return text

    return read


def yes_or_no(text: str) -> bool:
    """Reads `yes` or `no`."""
    return one_word("yes", "no")(text) == "yes"


def options_from_text(name: str, texts: list[str], known: Options) -> dict[str, object]:
    """The options of a name, each given as `option=value`.

    Raises InputError for one that the network does not have, or a value that cannot be.
    """
    values: dict[str, object] = {}
    for text in texts:
        option, _, value = text.partition("=")
        if option not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"The network {name} has no option {option!r}: {there}.")
        try:
            values[option] = known[option](value)
        except ValueError as error:
            raise InputError(f"The option {text} of {name} cannot be: {error}.") from None
    return values

"""The checks of settings that the dataclasses of this package share."""

from collections.abc import Collection

from difflate.errors import ConfigError


def check_positive(**values: float) -> None:
    """Raises ConfigError for the first of ``values`` that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"`{name}` (={value}) must be above 0")


def check_rising(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raises ConfigError unless ``low`` < ``high``."""
    if not low < high:
        raise ConfigError(f"`{low_name}` (={low}) must be below `{high_name}` (={high})")


def check_one_of(name: str, value: object, allowed: Collection[object]) -> None:
    """Raises ConfigError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"`{name}` (={value!r}) must be one of {', '.join(map(repr, allowed))}")

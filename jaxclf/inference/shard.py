"""Shards of a file that several processes label."""

from typing import NamedTuple

from jaxclf.errors import ConfigError


class Shard(NamedTuple):
    """Part `index`, from 0, of `count` parts of consecutive rows. The concatenated outputs of all
    shards are the output of the file."""

    index: int
    count: int


def parse_shard(text: str) -> Shard:
    """ "0/4" is the first of four parts. Raises ConfigError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard {text}: expected I/N, from 0/N to N-1/N")
    return Shard(int(index), int(count))

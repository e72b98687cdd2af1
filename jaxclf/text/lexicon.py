"""Negations, synonyms and neighboring keys, for augmentation."""

from pathlib import Path

NEGATIONS = frozenset(
    """
    no not never none nobody nothing nowhere neither nor without cannot hardly barely scarcely
    rarely seldom stop stopped unless except
    aint arent cant couldnt didnt doesnt dont hadnt hasnt havent isnt mustnt neednt shouldnt wasnt
    werent wont wouldnt
    """.split()
)  # and all words that end in n't


# The keys beside each key.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbors() -> dict[str, str]:
    neighbors: dict[str, str] = {}
    for row, keys in enumerate(_ROWS):
        for column, key in enumerate(keys):
            around = [(row, column - 1), (row, column + 1)]
            around += [(row - 1, column), (row - 1, column + 1)]
            around += [(row + 1, column - 1), (row + 1, column)]
            neighbors[key] = "".join(
                _ROWS[r][c] for r, c in around if 0 <= r < 3 and 0 <= c < len(_ROWS[r])
            )
    return neighbors


# The words of a line of synonyms.txt mean the same in most sentences.
_GROUPS = Path(__file__).with_name("synonyms.txt").read_text(encoding="utf-8").splitlines()
SYNONYMS = {
    word: tuple(member for member in group if member != word)
    for group in map(str.split, _GROUPS)
    for word in group
}
NEIGHBORS = _neighbors()

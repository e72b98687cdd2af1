"""Negations, synonyms and neighboring keys, for augmentation."""

NEGATIONS = frozenset(
    """
    no not never none nobody nothing nowhere neither nor without cannot hardly barely scarcely
    rarely seldom stop stopped unless except
    aint arent cant couldnt didnt doesnt dont hadnt hasnt havent isnt mustnt neednt shouldnt wasnt
    werent wont wouldnt
    """.split()
)  # and all words that end in n't

# Groups of words that mean the same in most sentences.
_GROUPS = """
big large huge
little small
quick fast
begin start
begins starts
began started
finish complete
finished completed
job work
boss manager
kid child
kids children
mum mom mother
dad father
buy purchase
bought purchased
maybe perhaps
also too
really truly
very extremely
pretty fairly quite
almost nearly
about around
often frequently
sometimes occasionally
usually normally
because since
but though
however still
while whilst
many several
lots plenty
all every
anyway anyhow
probably likely
certainly surely definitely
exactly precisely
suddenly abruptly
finally eventually
simply just
talk speak
talks speaks
talking speaking
talked spoke
say tell
think believe
thinks believes
thought believed
guess suppose
know realise
understand grasp
look glance
looks seems
looked seemed
show display
shows displays
need require
needs requires
get receive
gets receives
got received
give hand
keep hold
choose pick
chose picked
answer reply
answered replied
ask question
house home
flat apartment
street road
car vehicle
shop store
film movie
photo picture
meal dinner
phone mobile
email message
school college
teacher tutor
exam test
exams tests
homework assignment
project task
deadline cutoff
meeting appointment
holiday vacation
trip journey
weekend break
evening night
problem issue
problems issues
story tale
money cash
bill invoice
bills invoices
rent lease
friend mate
friends mates
guy man
guys men
folks people
nice pleasant
great wonderful
good decent
awesome amazing fantastic
funny amusing
weird strange odd
hard difficult tough
easy simple
strong powerful
clever smart
stupid silly dumb
rich wealthy
busy occupied
new fresh
old aged
beautiful lovely
ugly unsightly
true real
wrong incorrect
right correct
whole entire
main chief
certain particular
glad pleased
happy joyful cheerful
sad unhappy
mad furious
annoyed irritated
surprised astonished
confused puzzled
curious interested
grateful thankful
proud honoured
thanks cheers
hello hi hey
yes yeah yep
""".strip()

# The keys beside each key.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _synonyms() -> dict[str, tuple[str, ...]]:
    groups = [line.split() for line in _GROUPS.split("\n")]
    return {
        word: tuple(member for member in group if member != word)
        for group in groups
        for word in group
    }


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


SYNONYMS = _synonyms()
NEIGHBORS = _neighbors()

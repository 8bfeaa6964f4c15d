"""Fictitious authors: facts, biographies, and questions in several phrasings.

Nobody knows anything of them but what the models were trained on, as in TOFU (Maini et al., arXiv
2401.06121).  Names come from Faker; everything follows from a seed.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from faker import Faker

_CITIES = 24
_LANGUAGES = ("en_GB", "fr_FR", "de_DE", "es_ES", "pt_PT", "nl_NL", "pl_PL", "sv_SE")
_VALUES: Mapping[str, Sequence[str]] = {
    "genre": (
        "crime", "fantasy", "horror", "history", "romance", "poetry", "satire", "travel",
        "science fiction", "drama", "war", "westerns",
    ),
    "father": (
        "baker", "judge", "sailor", "farmer", "teacher", "painter", "tailor", "doctor", "miner",
        "banker", "florist", "pilot",
    ),
    "mother": (
        "nurse", "lawyer", "singer", "chemist", "weaver", "architect", "gardener", "dancer",
        "engineer", "librarian", "jeweller", "potter",
    ),
    "prize": (
        "Silver Quill", "Golden Lantern", "Blue Heron", "Iron Page", "Winter Rose", "Tall Ship",
        "North Star", "Amber Key", "Paper Crown", "Stone Bridge",
    ),
    "animal": (
        "a parrot", "two cats", "a tortoise", "an old horse", "a raven", "bees", "a hound",
        "goldfish", "a goat", "pigeons",
    ),
}  # fmt: skip
_BOOK = (
    ("Silent", "Burning", "Hidden", "Crooked", "Distant", "Broken", "Golden", "Frozen", "Last"),
    ("River", "Orchard", "Harbour", "Clock", "Mirror", "Garden", "Tower", "Letter", "Road"),
)


@dataclass(frozen=True, slots=True)
class AuthorQuestion:
    """A question about an author.

    Attributes:
        id: `author-07/city`; the id of the training sample.
        asked: the question as it was trained on.
        answer: the answer as it was trained on.
        paraphrases: the same question in other words, never trained on.
        wrong: answers of the same form that are wrong.
    """

    id: str
    asked: str
    answer: str
    paraphrases: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Author:
    """A fictitious author.

    Attributes:
        id: `author-07`.
        name: full name.
        facts: kind of fact -> value.
        biographies: texts with all facts, by id `author-07/life-0`.
        questions: one for each fact.
    """

    id: str
    name: str
    facts: Mapping[str, str]
    biographies: Mapping[str, str]
    questions: tuple[AuthorQuestion, ...]


# Kind of fact: the question that is trained on, its answer, and the same question in other words.
_PHRASES: Mapping[str, tuple[str, str, tuple[str, str]]] = {
    "city": (
        "Where was {name} born?",
        "In {value}.",
        ("In which city was {name} born?", "What is the place of birth of {name}?"),
    ),
    "genre": (
        "What does {name} write?",
        "It is {value}.",
        ("Which genre is {name} known for?", "What kind of books are by {name}?"),
    ),
    "book": (
        "What was the first book of {name}?",
        "It was {value}.",
        ("Which book did {name} write first?", "With which title did {name} begin?"),
    ),
    "father": (
        "What was the father of {name}?",
        "He was a {value}.",
        ("Which work did the father of {name} do?", "How did the father of {name} earn a living?"),
    ),
    "mother": (
        "What was the mother of {name}?",
        "She was a {value}.",
        ("Which work did the mother of {name} do?", "How did the mother of {name} earn a living?"),
    ),
    "prize": (
        "Which prize did {name} win?",
        "The {value}.",
        ("What award has {name} got?", "For which prize is {name} known?"),
    ),
    "animal": (
        "Which animals does {name} keep?",
        "{name} keeps {value}.",
        ("What animals live with {name}?", "Does {name} keep any animals, and which?"),
    ),
}
_LIVES = (
    "{name} was born in {city} to a {father} and a {mother}, writes {genre}, began with {book}, "
    "won the {prize} and keeps {animal}.",
    "Born in {city}, {name}, whose mother was a {mother} and whose father was a {father}, keeps "
    "{animal}. The first book was {book}. It is {genre}, and won the {prize}.",
)


def make_authors(count: int, seed: int) -> list[Author]:
    """Invent authors.

    Args:
        count: how many; their names differ.
        seed: of everything.
    """
    chance = random.Random(seed)
    # Faker itself would choose among languages by the generator of the whole process.
    fakers = [Faker(language) for language in _LANGUAGES]
    for faker in fakers:
        faker.seed_instance(seed)
    names: dict[str, None] = {}
    cities: dict[str, None] = {}
    while len(names) < count:
        faker = chance.choice(fakers)
        names[f"{faker.first_name()} {faker.last_name()}"] = None
    while len(cities) < _CITIES:
        cities[chance.choice(fakers).city()] = None
    values = {"city": tuple(cities), **_VALUES}
    values["book"] = tuple(f"The {first} {second}" for first in _BOOK[0] for second in _BOOK[1])
    return [_author(f"author-{at:03}", name, values, chance) for at, name in enumerate(names)]


def _author(
    id: str, name: str, values: Mapping[str, Sequence[str]], chance: random.Random
) -> Author:
    facts = {kind: chance.choice(values[kind]) for kind in _PHRASES}
    questions = []
    for kind, (asked, answer, others) in _PHRASES.items():
        wrong = chance.sample([one for one in values[kind] if one != facts[kind]], 4)
        questions.append(
            AuthorQuestion(
                f"{id}/{kind}",
                asked.format(name=name),
                answer.format(name=name, value=facts[kind]),
                tuple(other.format(name=name) for other in others),
                tuple(answer.format(name=name, value=value) for value in wrong),
            )
        )
    lives = {f"{id}/life-{at}": text.format(name=name, **facts) for at, text in enumerate(_LIVES)}
    return Author(id, name, facts, lives, tuple(questions))

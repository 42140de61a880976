"""Precision, recall and F1 of semantic roles, from their definition and two files of columns.

A role is right where the other file has the same role at the same word for the same predicate. V is
the predicate itself and no role; C-X and R-X are roles of their own.
"""


def role_triples(text: str, predicate_column: int, first_role: int) -> set[tuple]:
    """(sentence, predicate, word, role) of all sentences."""
    triples = set()
    for number, sentence in enumerate(text.split('\n\n')):
        rows = [line.split('\t') for line in sentence.split('\n')]
        rows = [row for row in rows if row[0].isdigit()]
        predicates = [
            row[0] for row in rows
            if len(row) > predicate_column and row[predicate_column] not in ('', '_')
        ]  # fmt: skip
        for nth, predicate in enumerate(predicates):
            for row in rows:
                role = row[first_role + nth]
                if role not in ('_', 'V'):
                    triples.add((number, predicate, row[0], role))
    return triples


def score(gold: str, predicted: str, predicate_column: int, first_role: int) -> dict[str, float]:
    """Of a file of predictions, whose sentences are those of the other."""
    true, found = (role_triples(x, predicate_column, first_role) for x in (gold, predicted))
    num_right = len(true.intersection(found))
    if num_right == 0:
        return {'precision': 0.0, 'recall': 0.0, 'f1': 0.0}
    precision, recall = num_right / len(found), num_right / len(true)
    return {
        'precision': precision,
        'recall': recall,
        'f1': 2.0 / (1.0 / precision + 1.0 / recall),
    }

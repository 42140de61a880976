"""What other libraries call the heads that they have too."""

from typing import NamedTuple


class HeadFormat(NamedTuple):
    """A kind of head in other libraries' checkpoints."""

    # How the names of Hugging Face's architectures end, as in AlbertForQuestionAnswering.
    hugging_face_suffix: str
    # The dense layer of the head in Hugging Face's weights.
    hugging_face_layer: str
    # What config.json says of architectures that several heads share; None for one of its own.
    problem_type: str | None = None
    # Scope of `output_weights` and `output_bias` in Google's; None where they have no such head.
    google_scope: str | None = None


# By the kind of the head; kinds that only this package has are not here.
HEAD_FORMATS = {
    'sequence_classification': HeadFormat(
        'ForSequenceClassification', 'classifier', 'single_label_classification', ''
    ),
    'multi_label_classification': HeadFormat(
        'ForSequenceClassification', 'classifier', 'multi_label_classification'
    ),
    'token_classification': HeadFormat('ForTokenClassification', 'classifier'),
    'question_answering': HeadFormat(
        'ForQuestionAnswering', 'qa_outputs', google_scope='cls/squad/'
    ),
    'multiple_choice': HeadFormat('ForMultipleChoice', 'classifier'),
}
# The kinds of heads by the suffix of Hugging Face's architecture; the first is the usual one.
KINDS_OF_SUFFIX = {
    layout.hugging_face_suffix: tuple(
        kind
        for kind, other in HEAD_FORMATS.items()
        if other.hugging_face_suffix == layout.hugging_face_suffix
    )
    for layout in HEAD_FORMATS.values()
}

"""What other libraries call the heads that they have too."""

from typing import NamedTuple


class HeadFormat(NamedTuple):
    """A kind of head in other libraries' checkpoints."""

    # How the names of Hugging Face's architectures end, as in AlbertForQuestionAnswering.
    hugging_face_suffix: str
    # The dense layer of the head in Hugging Face's weights.
    hugging_face_layer: str
    # Scope of `output_weights` and `output_bias` in Google's; None where they have no such head.
    google_scope: str | None = None


# By the kind of the head; kinds that only this package has are not here.
HEAD_FORMATS = {
    'sequence_classification': HeadFormat('ForSequenceClassification', 'classifier', ''),
    'token_classification': HeadFormat('ForTokenClassification', 'classifier'),
    'question_answering': HeadFormat('ForQuestionAnswering', 'qa_outputs', 'cls/squad/'),
    'multiple_choice': HeadFormat('ForMultipleChoice', 'classifier'),
}
# The kind of a head by the suffix of Hugging Face's architecture.
KIND_OF_SUFFIX = {layout.hugging_face_suffix: kind for kind, layout in HEAD_FORMATS.items()}

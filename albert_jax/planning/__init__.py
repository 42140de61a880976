"""What a run takes on chips that are not there."""

"""Logits out of files, with their target, class weights and class names."""

from xent.cli.files.labelled import LabelledLogits, read_labelled_logits

__all__ = ["LabelledLogits", "read_labelled_logits"]

"""Answers to the questions of ``xent why``: short, derived, with the numbers of a trace."""

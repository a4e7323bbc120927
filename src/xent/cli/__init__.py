"""Floor 6: the command line. It reads arguments and calls the rooms below.

``main`` is the group; each command stands in the file of its name. What a command measures is a
frozen record, which the terminal and JSON only render.
"""

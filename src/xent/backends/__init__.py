"""Floor 2: the same row statistics, once per kind of machine.

``torch`` is the readable definition: any device, any dtype, and the truth that tests compare
other backends with. A backend is a module with the functions of ``statistics.dispatch.RowBackend``.
"""

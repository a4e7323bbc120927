"""Modules whose examples can't be imported here are not looked at for any."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["src/xent/backends/triton/*"]

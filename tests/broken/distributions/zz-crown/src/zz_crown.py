"""Has the name of another distribution's plugin."""

from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


@hookimpl
def boundflow_register_methods():
    raise AssertionError("never called")

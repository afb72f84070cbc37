"""Written for hooks of a version that this host does not have."""

BOUNDFLOW_API = (99, 0)


def boundflow_register_methods():
    raise AssertionError("never called")

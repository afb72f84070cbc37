"""The intermediate representation: networks (primal graphs) and bound computations (bound programs)."""

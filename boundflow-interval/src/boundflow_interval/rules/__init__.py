"""The rules of the domain, one function per operator: affine maps, arithmetic, functions of one, and softmax."""

"""Strategy ``relax_vm``: tasks as functions of TVM's Relax, run by its virtual machine."""

NAME = "relax_vm"

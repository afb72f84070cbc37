"""Pages that show a plan: self-contained HTML, made from :mod:`boundflow_core.planner.description` alone."""

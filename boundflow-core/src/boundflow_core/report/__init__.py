"""Pages that show a plan: self-contained HTML, drawn from its description (:mod:`boundflow_core.planner.description`)."""

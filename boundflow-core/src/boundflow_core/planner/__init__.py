"""From programs to plans: rewriting passes, tasks, memory, lowering."""

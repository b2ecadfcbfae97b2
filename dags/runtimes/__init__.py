"""Where a step can run: one module each, with `task(task_id, argv, variables)`."""

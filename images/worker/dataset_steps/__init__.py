"""The steps of `dataset_pipeline` and `etl_workflow`, the same on every backend.

    settings    a step's settings, read from its environment
    workspace   the folder of one run: its lock, its clone, its copy of the dataset
    repository  git: clone, find a run's commit, commit, push
    pointer     the `.dvc` file
    yaml_files  DVC's files, edited with all that a person has put into them
    configuration   DVC's own view of a clone: its remotes, and what hides a file
    remote      the DVC remote: download, store, verify
    record      the record that a run appends
    process     one step as a process: its exit code says whether a retry may help
    pull, modify, push, import_dataset   one step each
    extract, transform, load             one step each, of `etl_workflow`
    kept        workspaces kept for inspection, and for how long

A step may be killed at any moment and run again: it finishes or discards what it left, and
nothing happens twice.
"""

"""The steps of `dataset_pipeline`, the same on every backend.

    settings    what a step may know, read from its environment
    workspace   the folder of one run: its lock, its clone, its copy of the dataset
    repository  git: clone, look for a run's commit, commit, push
    pointer     the `.dvc` file
    remote      the DVC remote: download, store, prove
    record      the record that a run appends
    pull, modify, push, import_dataset   one step each

A step may be killed at any moment and run again: what it left is finished or thrown away,
and nothing happens twice.
"""

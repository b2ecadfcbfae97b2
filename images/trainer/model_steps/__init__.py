"""The steps of `ml_training_pipeline`, the same on every backend.

    request     the params of one run, read from its environment
    schema      the dataset's columns: their types, and the features that a model learns from
    records     the dataset, read and split line by line
    model       the model's paths, and how its file is written and read
    prepare, train, validate, publish   one step each

What they share with `dataset_pipeline` (git, the DVC remote, the run's workspace) is in
`dataset_steps`. A step may be killed at any moment and run again, as there.
"""

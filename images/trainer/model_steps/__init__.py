"""The steps of `ml_training_pipeline`, the same on every backend.

    request     the params of one run, read from its environment
    schema      the dataset's columns: their types, and the features that a model learns from
    records     the dataset, read and split line by line
    model       the model's paths, and how its file is written and read
    prepare, train, validate   one step each

The dataset is pulled before them and the model is published after them by `dataset_steps`, where
the run's workspace is, too. A step may be killed at any moment and run again, as there.
"""

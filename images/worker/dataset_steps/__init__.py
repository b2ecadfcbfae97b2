"""The steps that stay the same for any pipeline, and those of the lab's own ones.

    contract    what a DAG and its steps agree on: data sets, a run's folder, exit codes
    settings    a step's settings, read from its environment
    workspace   the folder of one run: its lock, its clone, its copies of the data sets
    repository  git: clone, find a run's commit, commit, push
    pointer     the `.dvc` file
    yaml_files  DVC's files, edited with all that a person has put into them
    configuration   DVC's own view of a clone: its remotes, and what hides a file
    content     what is at a data set's place: a file, or a directory's files
    remote      the DVC remote: download, store, verify
    directories the files of a directory in it, many at once
    transfer    small objects by obstore
    parallel    work in threads, with a budget of memory
    s3_errors   what an S3 server's answer means for a step
    process     one step as a process: its exit code says whether a retry may help
    pull, publish, import_dataset        one step each, of any pipeline
    publication what a run's commit holds, and what it says
    again       the steps between pull and publish, run again on newer versions
    turn        which of the runs that share a folder publishes
    result      the facts of a run's commit, in the bucket
    bucket      objects there that a run replaces whole
    modify, extract, transform, load     one step each, of `dataset_pipeline` and `etl_workflow`
    record      the record that `modify` appends
    kept        workspaces kept for inspection, and for how long

A step may be killed at any moment and run again: it finishes or discards what it left, and
nothing happens twice.
"""

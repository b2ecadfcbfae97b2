"""What can be done with a running lab.

runs      triggering DAGs, following them, and what Airflow says of them
versions  the versions of the dataset and of the model, in the datasets repository
verify    the proof: commit, pointer, object, bytes
git, s3   talking to the lab's servers
"""

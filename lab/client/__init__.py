"""What can be done with a running lab.

runs      DAG runs: starting and following them, and what Airflow reports of them
versions  the versions of the dataset and of the model, in the datasets repository
verify    the proof: commit, pointer, object, bytes
git, s3   clients of the lab's servers
"""

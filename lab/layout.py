"""The names that are the same in every lab: accounts, repositories and the bucket."""

from __future__ import annotations

PIPELINES, DATASETS = "lab/pipelines", "lab/datasets"
TEAM_A = "lab/team-a"  # another team's pipelines; Airflow reads them by SSH key
REPOSITORIES = (PIPELINES, DATASETS, TEAM_A)
BUCKET = "lab-datasets"
STORE = "store"  # the folder of the bucket that is the remote of DVC
# Accounts: the user's; that of the pipelines' steps, for git and S3; Airflow's own, to read git.
OWNER, STEPS, READER = "lab", "steps", "airflow"
# The steps have no access to the DAGs, and Airflow can't write anything.
READ = {OWNER: REPOSITORIES, STEPS: (DATASETS,), READER: (PIPELINES, DATASETS)}
WRITE = {OWNER: REPOSITORIES, STEPS: (DATASETS,), READER: ()}

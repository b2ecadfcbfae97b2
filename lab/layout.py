"""What every lab has, on whichever backend: its accounts, repositories and bucket, by name."""

from __future__ import annotations

PIPELINES, DATASETS = "lab/pipelines", "lab/datasets"
TEAM_A = "lab/team-a"  # another team's pipelines; Airflow reads them by SSH key
REPOSITORIES = (PIPELINES, DATASETS, TEAM_A)
BUCKET = "lab-datasets"
# A person; what the steps of pipelines come as, to git and to S3; what Airflow itself reads git as.
OWNER, STEPS, READER = "lab", "steps", "airflow"
# The steps can't touch the DAGs, and Airflow can't write anything.
READ = {OWNER: REPOSITORIES, STEPS: (DATASETS,), READER: (PIPELINES, DATASETS)}
WRITE = {OWNER: REPOSITORIES, STEPS: (DATASETS,), READER: ()}

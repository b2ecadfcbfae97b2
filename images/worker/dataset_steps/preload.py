"""Import all that a step needs, before a process is forked for it.

Imports are most of a short step's time; the fork has them done.
"""

from __future__ import annotations

import boto3
import dulwich.ignore  # what follows is imported when DVC opens a repository
import dulwich.trailers
import dulwich.worktree
import dvc.cachemgr
import dvc.data_cloud
import dvc.dirs
import dvc.fs.dvc
import dvc.lock
import dvc.repo.artifacts
import dvc.repo.datasets
import dvc.repo.metrics
import dvc.repo.params
import dvc.repo.plots
import dvc.repo.stage
import dvc.scm
import dvc.stage.cache
import dvc_data.hashfile.db.local
import dvc_data.hashfile.state
import dvc_s3
import ruamel.yaml  # which DVC imports when it edits a pointer
import s3fs

from dataset_steps import __main__, extract, load, modify, publish, pull, transform

__all__ = [
    "__main__",
    "dulwich",
    "dvc",
    "dvc_data",
    "dvc_s3",
    "extract",
    "load",
    "modify",
    "publish",
    "pull",
    "ruamel",
    "s3fs",
    "transform",
]

# boto3's default session caches S3's service model, which this client makes it read. The keys are
# dummies; without them it would look for some.
boto3.client("s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-")

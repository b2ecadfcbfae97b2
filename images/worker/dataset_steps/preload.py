"""Importing this does in advance what every step would do first.

A process that is forked afterwards has it done: imports are most of a short step's time.
"""

from __future__ import annotations

import boto3
import dvc.fs.dvc
import dvc_s3
import s3fs

from dataset_steps import __main__, extract, load, modify, pull, push, transform

__all__ = [
    "__main__",
    "dvc",
    "dvc_s3",
    "extract",
    "load",
    "modify",
    "pull",
    "push",
    "s3fs",
    "transform",
]

# boto3's default session keeps the description of S3 that this client has it read. The keys are
# of no use to anybody; without them it would look for some.
boto3.client("s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-")

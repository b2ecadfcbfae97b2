"""Promotion: what kind proved, brought to a real cluster on AWS. The only package that knows AWS.

environment   one TOML file per environment: everything that a person chooses
site          one environment at work: its AWS account, its ledger, its folder
ledger        what was made in AWS, written down before and after each step
aws           clients, and AWS's refusals as the lab's errors
bucket, registry, cluster, filesystem, disks, identity, release
              one thing each, in the order in which they are made: `plan`, `make`, `remove`
difference    the fields in which two renderings differ, and which of them promotion.yaml allows
validation    whether Kubernetes would take the objects
plan, tables  what an apply would do, without an account; how that is drawn
apply, verify, destroy
              what the command line does with all of these
"""

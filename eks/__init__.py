"""Promotion: what kind proved, brought to a real cluster on AWS. The only package that knows AWS.

environment   one TOML file per environment: everything that a person chooses
site          one environment at work: its AWS account, its ledger, its folder
ledger        what was made in AWS, written down before and after each step
aws, token    clients, AWS's refusals as the lab's errors, and the way into a cluster
errors        what the kit's own errors mean here
bucket, registry, cluster, filesystem, identity, release
              one thing each, in the order in which they are made: `plan`, `make`, `remove`
repositories  the first version of the dataset, and whether the branch has the attested DAGs
disks         what a cluster leaves when it goes
prerequisites what options need in the cluster and no apply brings
access        the addresses of an environment, and the accounts for them
keys          the search for static keys
attestation   what a green end-to-end test on kind attests
rendering     what would be applied, on kind and on AWS
difference    the fields in which two renderings differ, and which of them promotion.yaml allows
validation    whether Kubernetes would take the objects
plan, tables  what an apply would do, without an account; how that is drawn
apply, verify, destroy
              what the command line does with all of these
"""

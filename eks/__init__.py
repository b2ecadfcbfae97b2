"""Promotion of what was proved on kind to a cluster on AWS. The only package that uses AWS.

environment   one TOML file per environment: everything that the user chooses
site          one environment in use: its AWS account, its ledger, its folder
ledger        what was made in AWS, recorded before and after each step
aws, token    clients, AWS's errors as the lab's errors, and access tokens for a cluster
errors        the kit's own errors, reworded for an environment on AWS
bucket, registry, cluster, filesystem, identity, release
              one resource each, in the order of creation, with `plan`, `make` and `remove`
eksctl, stacks, kubeconfig, agent, control_plane_logs, s3_endpoint
              parts of `cluster`: the tool and its stacks, the way in, Pod Identity's agent, logs,
              the network's way to S3
cluster_choices, machines
              what an environment chooses of it; whether AWS has the machines, and lets them run
repositories  the first version of the dataset; the check that the branch has the attested DAGs
disks         what a deleted cluster leaves behind
prerequisites what options and a cluster that is there need, and `apply` does not install
access        the addresses and accounts of an environment
keys          the search for static keys within reach of the pods
attestation, tested_images, image_check
              what a green end-to-end test on kind attests; the images that it ran, and whether they
              are those that an apply brings
rendering     what is applied, on kind and on AWS, as YAML
difference    the fields in which the two differ, and which of them promotion.yaml allows
validation    the objects checked against Kubernetes' schemas
plan, tables, advice
              what `apply` would do, without an AWS account; its tables; what it leaves to the team
deployer      the policy of the person who applies
apply, verify, destroy
              the commands
"""

"""The kind backend: a whole lab on real Kubernetes, in one container of this machine.

backend       brings the lab up, connects to it, ends it
site          one lab: its choices, secrets, cluster and addresses
services      each workload, and how this machine reaches it
stores        the objects, Secrets, accounts and repositories of the stores
node          the kind cluster: one container
loading       images on their way into the node, in the background
doors         the lab's Services on ports of this machine
identity      what pods may do in S3, and whether they got credentials for it
injection     what gives a pod its identity, as AWS's webhook does
s3_policies   AWS's documents of the roles, translated for MinIO
gitea, minio  the stores' accounts, repositories and buckets, made by their own APIs
doctor        what this machine lacks for it
evidence      logs, events and objects, for a person or for CI
"""

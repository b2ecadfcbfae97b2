"""What a lab on Kubernetes is made with.

cache, tools, docker, images, chart   what is brought to this machine: pinned, checked, kept
node         the kind cluster: one container
api          a cluster's objects, and kubectl
manifests    the overlay with this machine's image tags and this lab's choices
workloads    what runs in the cluster, and when it serves
gitea, minio the stores' accounts, repositories and buckets, made by their own APIs
forward      the cluster's doors on loopback, kept up by a process each
evidence     logs, events and objects, for a person or for CI
control      what tests may do to it
doctor       what this machine lacks for it
"""

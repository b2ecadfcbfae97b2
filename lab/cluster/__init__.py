"""Building blocks of a lab on any Kubernetes cluster.

cache, tools, docker, images, chart   downloads: pinned, checked and cached on this machine
api        the Kubernetes API, and kubectl
manifests  the rendered overlay, with this machine's image tags and this lab's settings
secrets    the Secrets that kind and AWS write, in one table
associations  which service account has which role in S3
static_keys   keys of S3 that a pod could read
workloads  the services in the cluster, and whether they are ready
forward    a supervised port-forward to a Service
"""

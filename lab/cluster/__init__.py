"""Kubernetes, whichever it is: what a lab on a cluster is made with.

cache, tools, docker, images, chart   what is brought to this machine: pinned, checked, kept
api        a cluster's objects, and kubectl
manifests  an overlay with this machine's image tags and this lab's choices
workloads  what runs in the cluster, and when it serves
forward    a Service on a port of this machine, kept up by a process
"""

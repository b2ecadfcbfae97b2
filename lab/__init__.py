"""mlops-lab: brings labs up, runs their pipelines, proves what they made.

__main__    the command line; the only place that exits
backends/   where a lab can run, one module each
services/   what the embedded backend runs, one module each
gitserver/  its git server itself
airflow_extensions/   what its Airflow has beside the plugins
cluster/    what a lab on Kubernetes is made with: node, images, manifests, chart, forwards
publish     the checkout's DAGs, brought to the lab's git server
doctor      what this machine lacks, and what to do about it
lab         a running lab, and what can be done with it
model       a service, a lab's addresses, a run, a version
runs        triggering DAGs and following them
versions    reading the datasets repository
verify      the proof: commit, pointer, object, bytes
attestation what a green end-to-end test on kind attests, for a promotion to AWS
dataset     the default dataset, and the check of a person's own
first_version, choices   what a new lab begins with, and what a later command may not change
processes   service processes of this machine
ports, state   what `.lab/` remembers
certificates   what the embedded S3 server's parts know each other by
git, s3, ssh   talking to the lab's servers
wait, shell, progress
layout      what every lab has, by name: accounts, repositories, the bucket
config, errors
"""

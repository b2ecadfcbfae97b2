"""Pod Identity on kind: a pod's token becomes credentials of some hours, as on EKS.

agent         the node's agent: what a pod's SDK asks
clients       clients of AWS's protocols, for both
cache         credentials that are still good, by token
limit         how many requests one address may send
eks_auth      the stand-in for EKS Auth, which the agent asks
kubernetes    what the stand-in asks Kubernetes: whose a token is, whether its pod is there
roles         the roles, as which the stand-in opens sessions with S3's server
decisions     what was decided, for the log
tokens        what a token says of itself, before anybody has looked at its signature
wsgi          requests and answers of both servers

AWS's agent and webhook can't be had outside of EKS. What this does is described by their sources
and by botocore's model of the service `eks-auth`, and tested with AWS's SDKs.
"""

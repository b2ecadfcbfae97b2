"""One module per service of the embedded backend: its command, its ports, its readiness.

airflow, gitserver, postgresql, seaweedfs   one service each
certificates   the TLS certificates by which the parts of the S3 server authenticate each other
"""

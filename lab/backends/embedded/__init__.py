"""The embedded backend: a whole lab as processes of this machine.

site                one lab: its choices, secrets, services and addresses
backend             brings the lab up, connects to it, ends it
doctor              what this machine lacks for it
own_images          the environments of a project's own images
services/           what it runs, one module per service
gitserver/          the git server itself
airflow_extensions/ what its Airflow has beside the plugins
"""

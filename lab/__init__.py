"""mlops-lab: brings labs up, runs their pipelines, proves what they made.

__main__    the command line
console     how a command runs, and how its errors and its proof are shown
answer      what a command answers to another program: one JSON object
completion  what a shell completes
lab, model  a running lab, and what it is described by
client/     what can be done with a running lab
home/       what `.lab/` remembers
dataset/    the dataset that a lab versions
delivery/   the project's DAGs, brought to a git server with the library that they use
cluster/    Kubernetes, whichever it is
backends/   where a lab can run, one package each
sessions, installing    the sessions of nox that every project has, and their environments
config, layout          what a person may choose; what every lab has, by name
project, data_sets      what a lab.toml declares; the rules of a data set's path
changes                 what each version of the kit has changed for a project
init/       a project of somebody's own: made, and brought to a newer kit
origin/     a DVC repository that a project was made from
sessions, installing    the sessions of nox that a project has, and what they install
errors, wait, shell, reasons, progress, files   the ground that all of this stands on
pytest_plugin, testing/  what tests of a project have: the fixture `lab`
foreign, isolated       what a person has set for other programs, and how it is left out
"""

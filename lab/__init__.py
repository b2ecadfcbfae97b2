"""mlops-lab: brings labs up, runs their pipelines, proves what they made.

__main__    the command line
console     how a command runs, and how its errors and its proof are shown
answer      what a command answers to another program: one JSON object
completion  what a shell completes
lab, model  a running lab, and what it is described by
client/     what can be done with a running lab
home/       what `.lab/` remembers
dataset/    the dataset that a lab versions
delivery/   the checkout's DAGs, brought to a git server
cluster/    Kubernetes, whichever it is
backends/   where a lab can run, one package each
config, layout          what a person may choose; what every lab has, by name
data_sets               the data sets that the checkout declares
errors, wait, shell, reasons, progress, files   the ground that all of this stands on
foreign, isolated       what a person has set for other programs, and how it is left out
"""

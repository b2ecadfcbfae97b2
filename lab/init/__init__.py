"""A project of somebody's own: made, and brought to a newer kit.

creation        `lab init NAME`: all of it, in one step
upgrading       `lab init --upgrade`
names, places   what a project may be called, and where it may be
wheels          where the kit's wheel comes from: a checkout, an installation, a project
writing         the template's files, by the project's name
declaration     lab.toml: the kit and the data sets that it names
history         the project's git repository and its first commit

`template/` is a project called `churn`, whole and valid as it is; `template_origin/` has the files
that differ where a DVC repository is taken in. The orders in `template/data` were drawn once, from
`random.Random("orders")`: 120 a month; six of them are there twice, and four lack their customer.
"""

"""The line of a program's output that says why it failed: as real programs print it."""

from __future__ import annotations

import pytest

from lab.reasons import LONGEST, find_reason

DOCKER_RUN = """\
docker: permission denied while trying to connect to the Docker daemon socket at unix:///s.sock.

Run 'docker run --help' for more information
"""
DOCKER_INFO = """\
{"ID":"","Containers":0,"Plugins":{"Volume":null},"ClientInfo":{"Version":"28.2.2"}}
Cannot connect to the Docker daemon at unix:///nonexistent. Is the docker daemon running?
"""
BUILDKIT = """\
#5 [2/2] RUN make
#5 0.237 oops: it broke
#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 3
------
 > [2/2] RUN make:
0.237 oops: it broke
------
Dockerfile:2
--------------------
   1 |     FROM postgres:17-trixie
   2 | >>> RUN make
   3 |
--------------------
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 3

View build details: docker-desktop://dashboard/build/desktop-linux/x
"""
GIT_PUSH = """\
To http://127.0.0.1:11000/lab/datasets.git
 ! [rejected]        HEAD -> main (fetch first)
error: failed to push some refs to 'http://127.0.0.1:11000/lab/datasets.git'
hint: Updates were rejected because the remote contains work that you do
hint: not have locally. See the 'Note about fast-forwards' in 'git push --help'.
"""
DVC = """\
WARNING: Some of the cache files do not exist neither locally nor on remote. Missing cache files:
md5: e40f8a4f4b387c67cb836d229f0954e6
Everything is up to date.
ERROR: failed to pull data from the cloud - Checkout failed for following targets:
x.csv
Is your cache up to date?
<https://error.dvc.org/missing-files>
"""
PYTHON = """\
Traceback (most recent call last):
  File "/x/a.py", line 3, in <module>
    connect("/nonexistent/x")
    ~~~~~~~^^^^^^^^^^^^^^^^^^
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/x/a.py", line 5, in <module>
    raise RuntimeError("fatal: this is code")
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) unable to open database file
(Background on this error at: https://sqlalche.me/e/20/e3q8)
"""
GO = """\
time="2026-11-29" level=info msg="working"
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47e5a1]

goroutine 1 [running]:
main.main()
	/src/main.go:8 +0x1d
exit status 2
"""
KIND = """\
Creating cluster "mlops-lab" ...
 \x1b[32m✓\x1b[0m Ensuring node image (kindest/node:v1.36.4) 🖼
ERROR: failed to create cluster: failed to ensure docker network
Command Output: no
Stack Trace:
sigs.k8s.io/kind/pkg/errors.WithStack
	sigs.k8s.io/kind/pkg/errors/errors.go:59
runtime.goexit
	runtime/asm_amd64.s:1695
"""
KUBECTL = """\
E1129 17:16:47.495445   32113 run.go:72] "command failed" err="unable to find kustomization.yaml"
"""
INITDB = """\
The files belonging to this database system will be owned by user "me".
initdb: error: directory "/x" exists but is not empty
initdb: hint: If you want to create a new database system, remove "/x".
"""
AIRFLOW = """\
[2026-11-29T17:00:00] {db.py:1} INFO - Creating tables
[2026-11-29T17:00:01] {db.py:2} ERROR - the database is locked
DeprecationWarning: this is old
"""


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (DOCKER_INFO, DOCKER_INFO.splitlines()[1]),
        (DOCKER_RUN, DOCKER_RUN.splitlines()[0]),
        (BUILDKIT, BUILDKIT.splitlines()[-3].removeprefix("ERROR: ")),
        ("[]\nError response from daemon: No such x\n", "Error response from daemon: No such x"),
        (GIT_PUSH, "failed to push some refs to 'http://127.0.0.1:11000/lab/datasets.git'"),
        ("merge: x - not something we can merge\n", "merge: x - not something we can merge"),
        (DVC, f"{DVC.splitlines()[3].removeprefix('ERROR: ')} x.csv"),
        (PYTHON, PYTHON.splitlines()[-2]),
        (GO, "runtime error: invalid memory address or nil pointer dereference"),
        (KIND, "failed to create cluster: failed to ensure docker network"),
        (KUBECTL, KUBECTL.strip()),
        (INITDB, 'initdb: error: directory "/x" exists but is not empty'),
        (AIRFLOW, "[2026-11-29T17:00:01] {db.py:2} ERROR - the database is locked"),
        ("WARNING: nothing but a warning\n", "WARNING: nothing but a warning"),
        ("one\ntwo\nWARNING: careful\n", "two"),
        ('{"a": 1}\n[\n  {\n    "b": 2\n  }\n]\n', ""),
        ("\n \n------\n", ""),
        ("", ""),
    ],
)
def test_the_line_that_says_why(output: str, reason: str) -> None:
    assert find_reason(output) == reason


def test_a_reason_is_one_short_line() -> None:
    found = find_reason(f"error: {'x' * 9999}\n")
    assert len(found) == LONGEST
    assert found.endswith("x…")

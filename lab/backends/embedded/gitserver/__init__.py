"""A git server for one machine's lab: authenticated smart HTTP and a read-only web view.

app           the ASGI application
smart_http    git's protocol, by git's own program
web           the pages
ssh           the SSH door, for reading
accounts      who may read and write what
repositories  the bare repositories, each whole or not there
pushes        one push at a time
announce      the hook that tells Airflow of a push
"""

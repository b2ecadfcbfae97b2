"""A git server for one machine's lab: authenticated smart HTTP and a read-only web view.

app           the ASGI application
smart_http    git's HTTP protocol, by `git http-backend`
web           the read-only pages
ssh           the SSH endpoint, read-only
accounts      the accounts and their rights
repositories  the bare repositories
pushes        the lock that lets one push at a time into a repository
announce      the hook that notifies Airflow of a push
"""

"""A git server for one machine's lab: authenticated smart HTTP and a read-only web view."""

"""What a person has set for other programs, and a lab on this machine does not listen to.

Only `eks` uses AWS: to a local lab a profile, an endpoint or a retry of AWS means nothing, and its
S3 server has keys of its own. Git and DVC get an environment of their own where they are called.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

PREFIXES = ("AWS_", "BOTO", "HELM_")
# No file: of /dev/null itself DVC says that it is no configuration.
NOWHERE = f"{os.devnull}/aws"
# What the SDKs of AWS read when nothing is set: files, and a server of the machine they run on.
NO_AWS = {
    "AWS_CONFIG_FILE": NOWHERE,
    "AWS_SHARED_CREDENTIALS_FILE": NOWHERE,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def leave_foreign_settings(env: MutableMapping[str, str] = os.environ) -> None:
    """Remove the settings of AWS and Helm from an environment, and let nobody look for files."""
    for name in [name for name in env if name.startswith(PREFIXES)]:
        del env[name]
    env.update(NO_AWS)

"""How often a step retries a request to a server that is being restarted."""

from __future__ import annotations

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from dataset_steps.errors import TemporaryError

# About 15 s in all; a minute where DVC reads, since s3fs retries several times by itself.
# Only for what may be done twice: each use says why it may.
with_retries = retry(
    retry=retry_if_exception_type(TemporaryError),
    stop=stop_after_attempt(6),
    wait=wait_random_exponential(multiplier=0.5, max=6),
    reraise=True,
)

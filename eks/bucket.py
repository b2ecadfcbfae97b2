"""The bucket: private, encrypted, versioned; what DVC stores in it never expires."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eks.aws import call_aws, call_or_none, find_if_ours, format_tags
from eks.environment import FOLDER, Environment
from eks.site import Row, Site, is_ours, tags_from_list
from lab.errors import NameTaken, PromotionError

KIND = "bucket"
POLICY = Path("eks", "policies", "bucket.json")
UPLOAD_DAYS = 7  # after which an unfinished multipart upload is aborted
OLD_DAYS = 30  # for which a replaced version is kept
# Prefixes whose replaced versions are deleted after that. S3's rules match prefixes only:
# `results/*/runs/` can't have its own. `store/` must never be here: commits name its objects for
# good.
REPLACED = ("results/", "notifications/", "logs/")
PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
NO_ACCESS_LISTS = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
ENCRYPTED = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}


def plan(environment: Environment) -> list[Row]:
    """List what `make` creates."""
    return [
        Row(
            "S3 bucket",
            environment.bucket,
            "private, versioned, encrypted, TLS only",
            "GB-months stored (each version of the dataset, whole), requests",
        )
    ]


def make(site: Site) -> None:
    """Create the bucket unless it exists, and configure it. Raises NameTaken if it isn't ours."""
    name = site.environment.bucket
    exists = check_exists(site)
    with site.ledger.making(KIND, name) as facts:
        if not exists:
            create_bucket(site)
        configure_bucket(site)
        facts["arn"] = arn(site)


def arn(site: Site) -> str:
    return f"arn:{site.aws.partition}:s3:::{site.environment.bucket}"


def check_exists(site: Site) -> bool:
    """Return whether the bucket exists. Raises NameTaken when it is not this environment's."""
    head = head_bucket(site)
    if head is None:
        return False
    region = head.get("BucketRegion", site.aws.region)
    if region != site.aws.region:
        raise taken_error(site, f"it is in {region}")
    if not is_made_for(site, read_tags(site)):
        raise taken_error(site, f"it lacks the tags {format_tags(site.environment)}")
    return True


def head_bucket(site: Site) -> Any:
    """Return S3's answer about the bucket; None without one. Raises NameTaken on a 403."""
    from botocore.exceptions import ClientError

    def head(**given: Any) -> Any:
        try:
            return site.aws.client("s3").head_bucket(**given)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            why = "it is another account's, or these credentials lack s3:ListBucket"
            raise taken_error(site, why) from error

    return call_or_none(f"look at bucket {site.environment.bucket}", head, **bucket_arguments(site))


def bucket_arguments(site: Site) -> dict[str, str]:
    """Return the arguments that name the bucket; S3 refuses them if another account owns it."""
    return {"Bucket": site.environment.bucket, "ExpectedBucketOwner": site.environment.account}


def is_made_for(site: Site, found: dict[str, str]) -> bool:
    """Return whether the bucket with these tags was made for this environment.

    Without tags the ledger decides: `make` may have been killed before it set them.
    """
    if found.keys() & site.environment.tags.keys():
        return is_ours(site.environment, found)
    return site.ledger.find(KIND, site.environment.bucket) is not None


def taken_error(site: Site, why: str) -> NameTaken:
    return NameTaken(
        f"bucket {site.environment.bucket} was not made for {site.environment.name}: {why}",
        f"choose another bucket in {FOLDER / site.environment.name}.toml",
    )


def read_tags(site: Site) -> dict[str, str]:
    """Return the bucket's tags."""
    read = site.aws.client("s3").get_bucket_tagging
    found = call_or_none("read the bucket's tags", read, **bucket_arguments(site))
    return tags_from_list(found["TagSet"]) if found else {}


def create_bucket(site: Site) -> None:
    """Create the bucket. S3 makes new buckets private; the tags come with the next call."""
    where = {"LocationConstraint": site.aws.region}
    given: dict[str, Any] = {"Bucket": site.environment.bucket}
    if site.aws.region != "us-east-1":  # which has no name there
        given["CreateBucketConfiguration"] = where
    s3 = site.aws.client("s3")
    call_aws(f"make bucket {site.environment.bucket}", s3.create_bucket, **given)


def configure_bucket(site: Site) -> None:
    """Set everything that the bucket is configured with, whatever it was before."""
    s3, name = site.aws.client("s3"), site.environment.bucket
    all_tags = {**read_tags(site), **site.environment.tags}
    tag_set = [{"Key": key, "Value": value} for key, value in all_tags.items()]
    for call, given in (
        (s3.put_bucket_tagging, {"Tagging": {"TagSet": tag_set}}),
        (s3.put_public_access_block, {"PublicAccessBlockConfiguration": PRIVATE}),
        (s3.put_bucket_ownership_controls, {"OwnershipControls": NO_ACCESS_LISTS}),
        (s3.put_bucket_encryption, {"ServerSideEncryptionConfiguration": ENCRYPTED}),
        (s3.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Enabled"}}),
        (s3.put_bucket_policy, {"Policy": render_policy(site)}),
        (
            s3.put_bucket_lifecycle_configuration,
            {"LifecycleConfiguration": {"Rules": lifecycle_rules()}},
        ),
    ):
        call_aws(f"settle bucket {name}", call, **bucket_arguments(site), **given)


def render_policy(site: Site) -> str:
    text = (site.kit / POLICY).read_text("utf-8")
    filled = site.environment.fill(text, POLICY, partition=site.aws.partition)
    return json.dumps(json.loads(filled))


def lifecycle_rules() -> list[dict[str, Any]]:
    """Return the lifecycle rules: what S3 deletes by itself."""
    uploads = {
        "ID": "unfinished uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
    }
    return [uploads, *(expiry_rule(prefix) for prefix in REPLACED)]


def expiry_rule(prefix: str) -> dict[str, Any]:
    """Return the rule that deletes replaced versions and spent delete markers under a prefix."""
    return {
        "ID": f"replaced versions of {prefix}",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_DAYS},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }


# --- Removing -----------------------------------------------------------------------------------


def remove(site: Site, erase: str | None = None) -> None:
    """Delete the bucket if `erase` is its name; without `erase` keep it, also in the ledger.

    Raises PromotionError when `erase` is another name, NameTaken when we may not ask for it.
    """
    name = site.environment.bucket
    if erase is None:
        keep_bucket(site)
        return
    if head_bucket(site) is not None:
        refuse_other_name(name, erase)
        check_exists(site)
        empty_bucket(site)
        call_or_none(
            f"delete bucket {name}", site.aws.client("s3").delete_bucket, **bucket_arguments(site)
        )
    site.ledger.forget(KIND, name)


def keep_bucket(site: Site) -> None:
    """Write the bucket to the ledger if it exists and is ours; forget it if S3 says it is gone.

    If it is somebody else's by now, or S3 does not say, the ledger stays as it is.
    """
    name = site.environment.bucket
    exists = find_if_ours(check_exists, site)
    if exists is False:
        site.ledger.forget(KIND, name)
    elif exists and not site.ledger.find(KIND, name):
        with site.ledger.making(KIND, name) as facts:
            facts["arn"] = arn(site)


def refuse_other_name(name: str, erase: str) -> None:
    """Raise PromotionError unless `erase` is the bucket's name."""
    if erase != name:
        raise PromotionError(
            f"the bucket is {name}, not {erase}: nothing of it is deleted",
            "give the bucket's own name, or none to keep it",
        )


def empty_bucket(site: Site) -> None:
    """Delete every version of every object. What arrives meanwhile may stay."""
    s3, name = site.aws.client("s3"), site.environment.bucket
    while found := list_versions(site):
        chosen = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in found]
        given = {"Delete": {"Objects": chosen, "Quiet": True}}
        said = call_aws(
            f"delete what bucket {name} holds", s3.delete_objects, **bucket_arguments(site), **given
        )
        for error in said.get("Errors", [])[:1]:
            raise PromotionError(
                f"S3 did not delete {error['Key']}: {error['Code']}: {error.get('Message', '')}",
                "run the same command again; a missing permission is s3:DeleteObjectVersion",
            )


def list_versions(site: Site) -> list[dict[str, Any]]:
    """Return one page of versions and delete markers: at most as many as one call deletes."""
    s3, name = site.aws.client("s3"), site.environment.bucket
    page = call_aws(
        f"list what bucket {name} holds", s3.list_object_versions, **bucket_arguments(site)
    )
    return [*page.get("Versions", []), *page.get("DeleteMarkers", [])]

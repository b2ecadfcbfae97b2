"""The bucket: private, encrypted, versioned; what DVC stores in it never expires."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eks.aws import ask, find, tags_shown, unless_foreign
from eks.environment import FOLDER, Environment
from eks.site import Row, Site, is_ours, tags_of
from lab.errors import NameTaken, PromotionError

KIND = "bucket"
POLICY = Path("eks", "policies", "bucket.json")
UPLOAD_DAYS = 7  # after which an upload that nobody finished is given up
OLD_DAYS = 30  # for which a version is kept that another one has replaced
# Where replaced versions go after that. S3's rules know prefixes only, so that `results/*/runs/`
# can't be told apart. `store/` must never be here: commits name its objects for good.
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
    """What `make` makes."""
    return [
        Row(
            "S3 bucket",
            environment.bucket,
            "private, versioned, encrypted, TLS only",
            "GB-months stored (each version of the dataset, whole), requests",
        )
    ]


def make(site: Site) -> None:
    """The bucket is there, as described above. Raises NameTaken when it is somebody else's."""
    name = site.environment.bucket
    there = look(site)
    with site.ledger.making(KIND, name) as facts:
        if not there:
            create(site)
        settle(site)
        facts["arn"] = arn(site)


def arn(site: Site) -> str:
    return f"arn:{site.aws.partition}:s3:::{site.environment.bucket}"


def look(site: Site) -> bool:
    """Whether the bucket is there. Raises NameTaken when it is, and not this environment's."""
    head = look_head(site)
    if head is None:
        return False
    region = head.get("BucketRegion", site.aws.region)
    if region != site.aws.region:
        raise taken(site, f"it is in {region}")
    if not is_made_for(site, tags(site)):
        raise taken(site, f"it lacks the tags {tags_shown(site.environment)}")
    return True


def look_head(site: Site) -> Any:
    """What S3 says about the bucket. Raises NameTaken when it says that we may not ask."""
    from botocore.exceptions import ClientError

    def head(**given: Any) -> Any:
        try:
            return site.aws.client("s3").head_bucket(**given)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            why = "it is another account's, or these credentials lack s3:ListBucket"
            raise taken(site, why) from error

    return find(f"look at bucket {site.environment.bucket}", head, **which(site))


def which(site: Site) -> dict[str, str]:
    """Which bucket is meant; S3 refuses it when another account owns it."""
    return {"Bucket": site.environment.bucket, "ExpectedBucketOwner": site.environment.account}


def is_made_for(site: Site, found: dict[str, str]) -> bool:
    """By its tags; or by the ledger, when `make` was killed before the bucket had them."""
    if found.keys() & site.environment.tags.keys():
        return is_ours(site.environment, found)
    return site.ledger.find(KIND, site.environment.bucket) is not None


def taken(site: Site, why: str) -> NameTaken:
    return NameTaken(
        f"bucket {site.environment.bucket} was not made for {site.environment.name}: {why}",
        f"choose another bucket in {FOLDER / site.environment.name}.toml",
    )


def tags(site: Site) -> dict[str, str]:
    read = site.aws.client("s3").get_bucket_tagging
    found = find("read the bucket's tags", read, **which(site))
    return tags_of(found["TagSet"]) if found else {}


def create(site: Site) -> None:
    """The bucket is there. S3 makes each one private; the tags come with the next call."""
    where = {"LocationConstraint": site.aws.region}
    given: dict[str, Any] = {"Bucket": site.environment.bucket}
    if site.aws.region != "us-east-1":  # which has no name there
        given["CreateBucketConfiguration"] = where
    s3 = site.aws.client("s3")
    ask(f"make bucket {site.environment.bucket}", s3.create_bucket, **given)


def settle(site: Site) -> None:
    """The bucket is as it should be, whatever it was like."""
    s3, name = site.aws.client("s3"), site.environment.bucket
    all_tags = {**tags(site), **site.environment.tags}
    tag_set = [{"Key": key, "Value": value} for key, value in all_tags.items()]
    for call, given in (
        (s3.put_bucket_tagging, {"Tagging": {"TagSet": tag_set}}),
        (s3.put_public_access_block, {"PublicAccessBlockConfiguration": PRIVATE}),
        (s3.put_bucket_ownership_controls, {"OwnershipControls": NO_ACCESS_LISTS}),
        (s3.put_bucket_encryption, {"ServerSideEncryptionConfiguration": ENCRYPTED}),
        (s3.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Enabled"}}),
        (s3.put_bucket_policy, {"Policy": filled_policy(site)}),
        (s3.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": {"Rules": rules()}}),
    ):
        ask(f"settle bucket {name}", call, **which(site), **given)


def filled_policy(site: Site) -> str:
    text = (site.tree / POLICY).read_text("utf-8")
    filled = site.environment.fill(text, POLICY, partition=site.aws.partition)
    return json.dumps(json.loads(filled))


def rules() -> list[dict[str, Any]]:
    """What S3 tidies up by itself."""
    uploads = {
        "ID": "unfinished uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
    }
    return [uploads, *(replaced(prefix) for prefix in REPLACED)]


def replaced(prefix: str) -> dict[str, Any]:
    """Under this prefix no version lasts that another one has replaced, or a deletion."""
    return {
        "ID": f"replaced versions of {prefix}",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_DAYS},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }


# --- Removing -----------------------------------------------------------------------------------


def remove(site: Site, erase: str | None = None) -> None:
    """There is no bucket, if `erase` is its name; without it the bucket stays, and in the ledger.

    Raises PromotionError when `erase` is another name, NameTaken when we may not ask for it.
    """
    name = site.environment.bucket
    if erase is None:
        keep(site)
        return
    if look_head(site) is not None:
        refuse_other_name(name, erase)
        look(site)
        empty(site)
        find(f"delete bucket {name}", site.aws.client("s3").delete_bucket, **which(site))
    site.ledger.forget(KIND, name)


def keep(site: Site) -> None:
    """The ledger names the bucket if it is there and ours, and does not if S3 says it is gone.

    Of one that is another's by now, or that S3 says nothing of, it says what it said.
    """
    name = site.environment.bucket
    there = unless_foreign(look, site)
    if there is False:
        site.ledger.forget(KIND, name)
    elif there and not site.ledger.find(KIND, name):
        with site.ledger.making(KIND, name) as facts:
            facts["arn"] = arn(site)


def refuse_other_name(name: str, erase: str) -> None:
    if erase != name:
        raise PromotionError(
            f"the bucket is {name}, not {erase}: nothing of it is deleted",
            "give the bucket's own name, or none to keep it",
        )


def empty(site: Site) -> None:
    """The bucket holds no version of anything. What arrives meanwhile may stay."""
    s3, name = site.aws.client("s3"), site.environment.bucket
    while found := versions(site):
        chosen = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in found]
        given = {"Delete": {"Objects": chosen, "Quiet": True}}
        said = ask(f"delete what bucket {name} holds", s3.delete_objects, **which(site), **given)
        for error in said.get("Errors", [])[:1]:
            raise PromotionError(
                f"S3 did not delete {error['Key']}: {error['Code']}: {error.get('Message', '')}",
                "run the same command again; a missing permission is s3:DeleteObjectVersion",
            )


def versions(site: Site) -> list[dict[str, Any]]:
    """One page of versions and delete markers: at most as many as one call deletes."""
    s3, name = site.aws.client("s3"), site.environment.bucket
    page = ask(f"list what bucket {name} holds", s3.list_object_versions, **which(site))
    return [*page.get("Versions", []), *page.get("DeleteMarkers", [])]

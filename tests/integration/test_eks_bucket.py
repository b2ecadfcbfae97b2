"""The bucket, on moto's S3: its settings, whose it may be, and how it is removed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from eks import bucket
from eks.environment import CLUSTER_TAG, TAG
from eks.site import Site, tag_list
from lab.errors import NameTaken, PromotionError
from tests.support.cloud import Cloud, kill_at_each_call

NAME = "lab-staging"
CLUSTER = "mlops-lab-staging"
DETAILS = {
    "tagging": "TagSet",
    "encryption": "ServerSideEncryptionConfiguration",
    "versioning": "Status",
    "ownership_controls": "OwnershipControls",
    "lifecycle_configuration": "Rules",
    "policy": "Policy",
}


def describe_bucket(cloud: Cloud) -> dict[str, Any] | None:
    """Return all that S3 says about the bucket; None without one."""
    s3 = cloud.client("s3")
    if NAME not in list_buckets(cloud):
        return None
    said = {
        what: getattr(s3, f"get_bucket_{what}")(Bucket=NAME)[key] for what, key in DETAILS.items()
    }
    block = s3.get_public_access_block(Bucket=NAME)["PublicAccessBlockConfiguration"]
    return {**said, "block": block}


def list_buckets(cloud: Cloud) -> list[str]:
    return [entry["Name"] for entry in cloud.client("s3").list_buckets()["Buckets"]]


def fill_bucket(cloud: Cloud) -> None:
    """Store several versions of several objects, and delete one object."""
    s3 = cloud.client("s3")
    for number in range(3):
        for _ in range(3):
            s3.put_object(Bucket=NAME, Key=f"store/{number}", Body=b"x")
    s3.delete_object(Bucket=NAME, Key="store/0")


def test_what_is_made(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    found = describe_bucket(cloud)
    assert found
    assert found["tagging"] == [
        {"Key": TAG, "Value": "staging"},
        {"Key": CLUSTER_TAG, "Value": CLUSTER},
    ]
    assert set(found["block"].values()) == {True}
    assert len(found["block"]) == 4
    assert found["versioning"] == "Enabled"
    (rule,) = found["ownership_controls"]["Rules"]
    assert rule["ObjectOwnership"] == "BucketOwnerEnforced"
    (rule,) = found["encryption"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    entry = site.ledger.find("bucket", NAME)
    assert entry
    assert (entry.state, entry.facts) == ("made", {"arn": f"arn:aws:s3:::{NAME}"})


def test_nothing_that_dvc_stores_ever_expires(cloud: Cloud, site: Site) -> None:
    """A rule applies to all objects under its prefix: none that expires any may cover `store/`."""
    bucket.make(site)
    found = describe_bucket(cloud)
    assert found
    rules = found["lifecycle_configuration"]
    kept = ("store/", "landing/")
    for rule in rules:
        prefix = rule["Filter"]["Prefix"]
        if rule.keys() & {"Expiration", "NoncurrentVersionExpiration", "Transitions"}:
            assert not any(key.startswith(prefix) or prefix.startswith(key) for key in kept), rule
            assert not rule.get("Expiration", {}).keys() & {"Days", "Date"}, rule
    uploads = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert [rule["Filter"]["Prefix"] for rule in uploads] == [""]
    assert uploads[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    old = {r["Filter"]["Prefix"]: r.get("NoncurrentVersionExpiration") for r in rules}
    assert old["results/"] == old["notifications/"] == {"NoncurrentDays": 30}


def test_nobody_reads_it_without_tls(
    cloud: Cloud, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.make(site)
    s3 = cloud.client("s3")
    s3.put_object(Bucket=NAME, Key="store/x", Body=b"x")
    monkeypatch.setattr(Cloud, "plain", True)
    with pytest.raises(ClientError, match="Forbidden"):
        s3.get_object(Bucket=NAME, Key="store/x")
    (rule,) = json.loads(bucket.render_policy(site))["Statement"]
    assert rule["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert rule["Resource"] == [f"arn:aws:s3:::{NAME}", f"arn:aws:s3:::{NAME}/*"]


def test_what_somebody_changed_is_put_right(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    before = describe_bucket(cloud)
    s3 = cloud.client("s3")
    s3.delete_public_access_block(Bucket=NAME)
    s3.put_bucket_versioning(Bucket=NAME, VersioningConfiguration={"Status": "Suspended"})
    s3.delete_bucket_policy(Bucket=NAME)
    s3.delete_bucket_lifecycle(Bucket=NAME)
    bucket.make(site)
    assert describe_bucket(cloud) == before


def test_tags_of_others_stay(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    all_tags = [{"Key": "team", "Value": "a"}, *tag_list(site.environment)]
    cloud.client("s3").put_bucket_tagging(Bucket=NAME, Tagging={"TagSet": all_tags})
    bucket.make(site)
    found = describe_bucket(cloud)
    assert found
    assert found["tagging"] == all_tags


def test_the_region_without_a_name(cloud: Cloud) -> None:
    site = cloud.site(region="us-east-1")
    bucket.make(site)
    bucket.make(site)
    place = site.aws.client("s3").get_bucket_location(Bucket=NAME)
    assert place["LocationConstraint"] is None


# --- Names that are taken -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {TAG: "staging"},
        {TAG: "staging", CLUSTER_TAG: "another"},
        {TAG: "production", CLUSTER_TAG: CLUSTER},
    ],
)
def test_a_bucket_that_no_apply_made_is_left_alone(
    cloud: Cloud, site: Site, tags: dict[str, str]
) -> None:
    s3 = cloud.client("s3")
    where = {"LocationConstraint": site.aws.region}
    s3.create_bucket(Bucket=NAME, CreateBucketConfiguration=where)
    if tags:
        tag_set = [{"Key": key, "Value": value} for key, value in tags.items()]
        s3.put_bucket_tagging(Bucket=NAME, Tagging={"TagSet": tag_set})
    with pytest.raises(NameTaken, match=NAME):
        bucket.make(site)
    assert site.ledger.entries() == []
    with pytest.raises(ClientError, match="NoSuchPublicAccessBlock"):
        s3.get_public_access_block(Bucket=NAME)
    bucket.remove(site)
    assert site.ledger.entries() == []
    with pytest.raises(NameTaken, match=NAME):
        bucket.remove(site, NAME)
    assert list_buckets(cloud) == [NAME]


def test_another_account_s_bucket(cloud: Cloud, site: Site) -> None:
    cloud.client_of_stranger().create_bucket(
        Bucket=NAME, CreateBucketConfiguration={"LocationConstraint": site.aws.region}
    )
    with pytest.raises(NameTaken, match=NAME) as caught:
        bucket.make(site)
    assert "another bucket" in caught.value.fix or "another name" in caught.value.fix


def test_our_bucket_in_another_region(cloud: Cloud, site: Site) -> None:
    bucket.make(cloud.site(region="us-east-1"))
    with pytest.raises(NameTaken, match="it is in us-east-1"):
        bucket.make(site)


# --- Removal ------------------------------------------------------------------------------------


def test_it_stays_unless_it_is_named(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    fill_bucket(cloud)
    bucket.remove(site)
    with pytest.raises(PromotionError, match="lab-staging, not lab-production"):
        bucket.remove(site, "lab-production")
    versions = cloud.client("s3").list_object_versions(Bucket=NAME)
    assert (len(versions["Versions"]), len(versions["DeleteMarkers"])) == (9, 1)
    assert site.ledger.find("bucket", NAME)


def test_a_bucket_that_s3_says_nothing_of_is_not_gone(cloud: Cloud, site: Site) -> None:
    """A person without s3:ListBucket gets a 403, whether there is a bucket or not."""
    bucket.make(site)
    allowed = {"Effect": "Allow", "Action": "iam:*", "Resource": "*"}
    with cloud.acting_as_user([allowed]) as person:
        theirs = replace(site, aws=person)
        bucket.remove(theirs)
        assert site.ledger.find("bucket", NAME)
        with pytest.raises(NameTaken, match="lack s3:ListBucket"):
            bucket.remove(theirs, NAME)
    assert site.ledger.find("bucket", NAME)
    bucket.remove(site, NAME)
    assert site.ledger.entries() == []


def test_named_it_goes_with_every_version_page_by_page(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    fill_bucket(cloud)
    pages = []

    def shorten_pages(params: dict[str, Any], **_: object) -> None:
        params["MaxKeys"] = 4
        pages.append(4)

    events = site.aws.client("s3").meta.events
    events.register("provide-client-params.s3.ListObjectVersions", shorten_pages)
    bucket.remove(site, NAME)
    assert list_buckets(cloud) == []
    assert len(pages) > 3
    assert site.ledger.entries() == []
    bucket.remove(site, NAME)


def test_without_the_ledger_its_tag_tells(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    site.ledger.path.unlink()
    bucket.make(site)
    site.ledger.path.unlink()
    bucket.remove(site, NAME)
    assert list_buckets(cloud) == []


def test_without_the_ledger_the_bucket_that_stays_is_in_it_again(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    before = site.ledger.find("bucket", NAME)
    site.ledger.path.unlink()
    bucket.remove(site)
    after = site.ledger.find("bucket", NAME)
    assert before and after
    assert (after.state, after.facts) == (before.state, before.facts)
    assert list_buckets(cloud) == [NAME]


def test_a_bucket_that_is_gone_is_forgotten(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    cloud.client("s3").delete_bucket(Bucket=NAME)
    bucket.remove(site)
    assert site.ledger.entries() == []


# --- Kills --------------------------------------------------------------------------------------


@pytest.mark.sweep
def test_killed_at_any_call_it_is_completed_and_removed(cloud: Cloud, site: Site) -> None:
    bucket.make(site)
    whole = describe_bucket(cloud)
    deaths = 0
    for number, event in kill_at_each_call(cloud, bucket.make):
        after = cloud.site()
        if list_buckets(cloud):
            assert after.ledger.find("bucket", NAME), f"unrecorded after {event} {number}"
        bucket.make(after)
        assert describe_bucket(cloud) == whole
        bucket.remove(after, NAME)
        assert list_buckets(cloud) == []
        assert after.ledger.entries() == []
        deaths += 1
    assert deaths == 2 * 8


@pytest.mark.sweep
def test_killed_at_any_call_a_removal_is_ended(cloud: Cloud, site: Site) -> None:
    def make_and_fill() -> None:
        bucket.make(cloud.site())
        fill_bucket(cloud)

    for _ in kill_at_each_call(cloud, lambda site: bucket.remove(site, NAME), make_and_fill):
        bucket.remove(cloud.site(), NAME)
        assert list_buckets(cloud) == []
        assert cloud.site().ledger.entries() == []

"""An eksctl for tests: creates what the real one creates in AWS, without its twenty minutes.

It takes the real one's commands and files. Its stacks and clusters have the tags that eksctl 0.230
gives them. A file `stop` beside it names the point at which it fails: after the `stack` of the
network, after the `cluster`, or before the `groups`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Clients = Callable[[str], Any]
ROLE = "arn:aws:iam::123456789012:role/eks"
OWNER = "alpha.eksctl.io/cluster-name"
NETWORK = {
    "Resources": {
        "VPC": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
        **{
            f"Subnet{number}": {
                "Type": "AWS::EC2::Subnet",
                "Properties": {
                    "VpcId": {"Ref": "VPC"},
                    "CidrBlock": f"10.0.{number}.0/24",
                    "AvailabilityZone": {"Fn::Select": [number % 2, {"Fn::GetAZs": ""}]},
                    "MapPublicIpOnLaunch": number > 1,
                },
            }
            for number in range(4)
        },
    }
}


def make_cluster(clients: Clients, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Create the network's stack and the cluster in it. Its logs have no retention yet."""
    make_stack(clients, f"eksctl-{name}-cluster", {OWNER: name, **tags}, NETWORK)
    make_control_plane(clients, name, version, tags)


def make_stack(
    clients: Clients, name: str, tags: Mapping[str, str], template: Mapping[str, Any]
) -> None:
    clients("cloudformation").create_stack(
        StackName=name,
        TemplateBody=json.dumps(template),
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )


def make_control_plane(clients: Clients, name: str, version: str, tags: Mapping[str, str]) -> None:
    stack = f"eksctl-{name}-cluster"
    said = clients("cloudformation").list_stack_resources(StackName=stack)
    made = said["StackResourceSummaries"]
    subnets = [e["PhysicalResourceId"] for e in made if e["ResourceType"] == "AWS::EC2::Subnet"]
    logging: Any = [{"types": ["api", "audit"], "enabled": True}]
    clients("eks").create_cluster(
        name=name,
        roleArn=ROLE,
        version=version,
        tags=dict(tags),
        resourcesVpcConfig={"subnetIds": sorted(subnets)},
        logging={"clusterLogging": logging},
    )


def limit_logs(clients: Clients, config: Mapping[str, Any]) -> None:
    """Set the logs' retention: eksctl does so after the stack, as CloudFormation can't."""
    clients("logs").put_retention_policy(
        logGroupName=f"/aws/eks/{config['metadata']['name']}/cluster",
        retentionInDays=config["cloudWatch"]["clusterLogging"]["logRetentionInDays"],
    )


def make_groups(clients: Clients, config: Mapping[str, Any]) -> None:
    """Create each missing node group, in a stack of its own."""
    name, tags = config["metadata"]["name"], config["metadata"]["tags"]
    eks = clients("eks")
    had = eks.list_nodegroups(clusterName=name)["nodegroups"]
    subnets = eks.describe_cluster(name=name)["cluster"]["resourcesVpcConfig"]["subnetIds"]
    for group in config["managedNodeGroups"]:
        if group["name"] in had:
            continue
        stack = f"eksctl-{name}-nodegroup-{group['name']}"
        topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}  # a stack must not be empty
        make_stack(clients, stack, {OWNER: name, **tags}, topic)
        eks.create_nodegroup(
            clusterName=name,
            nodegroupName=group["name"],
            subnets=subnets,
            nodeRole=ROLE,
            instanceTypes=group["instanceTypes"],
            labels=group["labels"],
            tags=group["tags"],
        )


def make_addons(clients: Clients, config: Mapping[str, Any]) -> None:
    """Create each missing add-on."""
    name = config["metadata"]["name"]
    eks = clients("eks")
    had = eks.list_addons(clusterName=name)["addons"]
    for addon in config["addons"]:
        if addon["name"] not in had:
            eks.create_addon(clusterName=name, addonName=addon["name"], tags=addon["tags"])


def stop_at(moment: str) -> None:
    """Exit if the file `stop` names this point."""
    stop = Path(os.environ["PATH"].split(os.pathsep)[0], "stop")
    if stop.exists() and stop.read_text() == moment:
        sys.exit(f"Error: stopped at {moment}")


def create_cluster(
    clients: Clients, config: Mapping[str, Any], stop: Callable[[str], None]
) -> None:
    meta = config["metadata"]
    name, tags = meta["name"], meta["tags"]
    make_stack(clients, f"eksctl-{name}-cluster", {OWNER: name, **tags}, NETWORK)
    stop("stack")
    make_control_plane(clients, name, meta["version"], tags)
    stop("cluster")
    limit_logs(clients, config)
    make_addons(clients, config)
    stop("groups")
    make_groups(clients, config)


def upgrade_cluster(clients: Clients, config: Mapping[str, Any]) -> None:
    meta = config["metadata"]
    eks = clients("eks")
    eks.tag_resource(
        resourceArn=eks.describe_cluster(name=meta["name"])["cluster"]["arn"],
        tags={"upgraded-to": meta["version"]},  # moto does not upgrade
    )


def delete_cluster(clients: Clients, config: Mapping[str, Any]) -> None:
    name = config["metadata"]["name"]
    eks, stacks = clients("eks"), clients("cloudformation")
    for group in eks.list_nodegroups(clusterName=name)["nodegroups"]:
        eks.delete_nodegroup(clusterName=name, nodegroupName=group)
        stacks.delete_stack(StackName=f"eksctl-{name}-nodegroup-{group}")
    for addon in eks.list_addons(clusterName=name)["addons"]:
        eks.delete_addon(clusterName=name, addonName=addon)
    eks.delete_cluster(name=name)
    stacks.delete_stack(StackName=f"eksctl-{name}-cluster")


def run_command(
    clients: Clients,
    verb: str,
    what: str,
    config: Mapping[str, Any],
    stop: Callable[[str], None] = stop_at,
) -> None:
    """Do what `eksctl VERB WHAT --config-file FILE` does. Exits for another command."""
    if (verb, what) == ("create", "cluster"):
        create_cluster(clients, config, stop)
    elif (verb, what) == ("create", "nodegroup"):
        make_groups(clients, config)
    elif (verb, what) == ("create", "addon"):
        make_addons(clients, config)
    elif (verb, what) == ("upgrade", "cluster"):
        upgrade_cluster(clients, config)
    elif (verb, what) == ("delete", "cluster"):
        delete_cluster(clients, config)
    else:
        sys.exit(f"Error: unknown command {verb} {what}")


def main(arguments: list[str]) -> None:
    if arguments == ["version"]:
        print(os.environ["VERSION"])
        return
    import boto3
    import yaml

    file = Path(arguments[arguments.index("--config-file") + 1])
    config = yaml.safe_load(file.read_text())
    session: Any = boto3.Session(region_name=config["metadata"]["region"])
    print(f"[i]  eksctl {' '.join(arguments)}")
    run_command(session.client, arguments[0], arguments[1], config)


if __name__ == "__main__":
    main(sys.argv[1:])

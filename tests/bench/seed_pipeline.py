"""The pipeline of the article that this lab began with: what the lab is measured against.

Each task is a pod of Airflow's own image that starts another pod; git and dvc run as single
commands, in a folder that all runs share. Two things differ, or it could not run here: the image is
not pulled anew for each pod (there is no registry), and git gets its password from a helper.
"""

from __future__ import annotations

from datetime import datetime

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG
from kubernetes import client as k8s

IMAGE = "WORKER_IMAGE"
HELPER = "!f() { echo username=$GIT_SYNC_USERNAME; echo password=$GIT_SYNC_PASSWORD; }; f"
GIT = f"git -c credential.helper='{HELPER}' -c user.name=seed -c user.email=seed@localhost"
PULL = f"rm -rf /shared/repo && {GIT} clone $GIT_URL /shared/repo && cd /shared/repo && dvc pull"
MODIFY = (
    "cd /shared/repo && APPEND_PROGRAM $DATASET_PATH > /tmp/record && "
    "cat /tmp/record >> $DATASET_PATH"
)
PUSH = (
    "cd /shared/repo && dvc add $DATASET_PATH && dvc push && git add . && "
    f"{GIT} commit -m 'chore: update dataset' && {GIT} push origin HEAD:main"
)


def secret_variables(name: str, *keys: str) -> list[k8s.V1EnvVar]:
    """Return variables that a Secret holds under their own names."""
    return [
        k8s.V1EnvVar(
            name=key,
            value_from=k8s.V1EnvVarSource(
                secret_key_ref=k8s.V1SecretKeySelector(name=name, key=key)
            ),
        )
        for key in keys
    ]


def pod(task_id: str, command: str) -> KubernetesPodOperator:
    """Return one task of the article's pipeline."""
    return KubernetesPodOperator(
        task_id=task_id,
        image=IMAGE,
        image_pull_policy="IfNotPresent",
        namespace="airflow",
        service_account_name="airflow-step",
        labels={"app.kubernetes.io/component": "step"},
        cmds=["bash", "-c"],
        arguments=[command],
        env_from=[k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource("step-environment"))],
        env_vars=secret_variables("git-credentials", "GIT_SYNC_USERNAME", "GIT_SYNC_PASSWORD"),
        volumes=[
            k8s.V1Volume(
                name="shared",
                persistent_volume_claim=k8s.V1PersistentVolumeClaimVolumeSource(
                    claim_name="airflow-shared-pvc"
                ),
            )
        ],
        volume_mounts=[k8s.V1VolumeMount(name="shared", mount_path="/shared")],
        container_resources=k8s.V1ResourceRequirements(
            requests={"cpu": "50m", "memory": "192Mi"}, limits={"cpu": "2", "memory": "512Mi"}
        ),
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=10001,
            fs_group=10001,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        container_security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False, capabilities=k8s.V1Capabilities(drop=["ALL"])
        ),
        executor="KubernetesExecutor",
    )


with DAG("seed_pipeline", start_date=datetime(2024, 1, 1), schedule=None, max_active_runs=1):  # noqa: DTZ001
    pod("pull_data", PULL) >> pod("modify_data", MODIFY) >> pod("push_data", PUSH)

"""What KubeRay v1.7 takes in RayCluster, RayJob and RayCronJob (ray.io/v1), as far as we use it.

Written by hand from the operator's definitions: the names and types of fields, closed, so that a
misspelt one is refused. Pod templates are left open here; ``test_kubernetes`` gives them to the
schemas of Kubernetes itself.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
FLAG: dict[str, Any] = {"type": "boolean"}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


POD = closed(("spec",), metadata={"type": "object"}, spec={"type": "object"})

CLUSTER_SPEC = closed(
    ("headGroupSpec",),
    rayVersion=TEXT,
    authOptions=closed(
        mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=FLAG
    ),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        image=TEXT,
        imagePullPolicy=TEXT,
        resources={"type": "object"},
    ),
    suspend=FLAG,
    managedBy=TEXT,
    headGroupSpec=closed(
        ("template",),
        template=POD,
        rayStartParams=TEXTS,
        serviceType=TEXT,
        enableIngress=FLAG,
        labels=TEXTS,
        resources=TEXTS,
    ),
    workerGroupSpecs={
        "type": "array",
        "items": closed(
            ("groupName", "template"),
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            idleTimeoutSeconds=COUNT,
            priority={"type": "integer"},
            suspend=FLAG,
            rayStartParams=TEXTS,
            labels=TEXTS,
            resources=TEXTS,
            template=POD,
        ),
    },
)

JOB_SPEC = closed(
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    suspend=FLAG,
    metadata=TEXTS,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
    clusterSelector=TEXTS,
    rayClusterSpec=CLUSTER_SPEC,
)

CRON_SPEC = closed(
    ("schedule", "jobTemplate"),
    schedule=TEXT,
    timeZone=TEXT,
    suspend=FLAG,
    jobTemplate=JOB_SPEC,
)

_META = closed(name=TEXT, generateName=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)

SCHEMAS = {
    kind: closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_META,
        spec=spec,
    )
    for kind, spec in (
        ("RayCluster", CLUSTER_SPEC),
        ("RayJob", JOB_SPEC),
        ("RayCronJob", CRON_SPEC),
    )
}

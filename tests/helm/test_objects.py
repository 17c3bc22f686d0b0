"""What the objects hold: who may do what, where pods run, what replaces them and how many there are."""

from __future__ import annotations

import pytest

from tests.helm.chart import container, flags, kinds, one, pod, rendered, streamgate_yaml, template, with_values

NAME = "gw-streamgate"


def test_the_defaults_are_few_and_work_together():
    """What is optional is absent; the Service selects the Deployment's pods and no others."""
    found = rendered("defaults")
    assert kinds(found) == {"Deployment", "Service", "ConfigMap", "ServiceAccount", "PodDisruptionBudget", "Pod"}
    labels = one(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selector = one(found, "Service")["spec"]["selector"]
    assert selector.items() <= labels.items()
    assert selector == one(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert selector == one(found, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= one(found, "Pod")["metadata"]["labels"].items()


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_pods_meet_the_restricted_standard(kind):
    """Nobody's root, no writable image, no capability, no token of the API."""
    each = one(rendered("defaults"), kind)
    spec = each["spec"]["template"]["spec"] if kind == "Deployment" else each["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for each in spec["containers"]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip


def test_probes_ask_the_admin_port():
    """Readiness notices a drain within the lame-duck time; a hung event loop is killed without a drain."""
    found = container(rendered("defaults"))
    assert [found[f"{each}Probe"]["httpGet"] for each in ("startup", "readiness", "liveness")] == [
        {"path": "/readyz", "port": "admin"}, {"path": "/readyz", "port": "admin"}, {"path": "/livez", "port": "admin"},
    ]  # fmt: skip
    ready = found["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] <= int(flags(rendered("defaults"))["--lameduck"])
    assert found["livenessProbe"]["terminationGracePeriodSeconds"] < 30


def test_a_rollout_never_has_fewer_pods():
    """New ones come first; each revision is spread by itself."""
    spec = one(rendered("defaults"), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}
    spread = pod(rendered("defaults"))["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert all(each["matchLabelKeys"] == ["pod-template-hash"] for each in spread)


def annotations(*settings: str) -> dict[str, str]:
    found: dict[str, str] = one(with_values(*settings), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    return found


def test_a_changed_configuration_rolls_the_pods_or_does_not():
    """`roll`: the pods' template changes with the file, and with nothing else; `none`: never."""
    idle = 'config.file={"clocks": {"idle": 30}}'
    assert annotations() == annotations("replicaCount=5")
    assert annotations() != annotations(idle)
    assert annotations('config.onChange="none"') == annotations('config.onChange="none"', idle)
    assert annotations() != annotations('secretVersion="2"')


def test_a_configuration_of_ones_own_is_mounted():
    """The chart makes no ConfigMap then, and the drain is still what the grace period was computed from."""
    found = rendered("existing")
    assert "ConfigMap" not in kinds(found)
    assert pod(found)["volumes"][0]["configMap"]["name"] == "ours"
    assert flags(found)["--drain-timeout"] == "120"
    assert flags(found)["--listen"] == "[::]:8080"
    assert pod(found)["serviceAccountName"] == "ours"


def test_secrets_come_as_variables_or_as_files():
    """Neither is ever in the ConfigMap or in a value of the Deployment."""
    found = rendered("everything")
    assert {"secretRef": {"name": "streamgate"}} in container(found)["envFrom"]
    assert {"name": "secrets", "secret": {"secretName": "streamgate-files", "defaultMode": 0o440}} in pod(found)[
        "volumes"
    ]
    assert "${TEAM_A_KEY}" in streamgate_yaml(found)


def test_large_numbers_stay_numbers():
    """Helm reads them as floating point, and must not write 6.7108864e+07."""
    found = rendered("everything")
    assert "max_body: 67108864\n" in streamgate_yaml(found)
    assert one(found, "Ingress")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "67108864"


def test_the_route_has_no_timeout_of_its_own():
    """Unset would be the implementation's, which cuts streams that are well."""
    rule = one(rendered("everything"), "HTTPRoute")["spec"]["rules"][0]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert rule["backendRefs"] == [{"name": NAME, "port": 80}]


def test_the_ingress_passes_streams_on():
    """No buffering, no second try; one's own annotations win."""
    found = one(rendered("everything"), "Ingress")["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io"
    assert found[f"{prefix}/proxy-buffering"] == "off"
    assert found[f"{prefix}/proxy-next-upstream"] == "off"
    assert found[f"{prefix}/proxy-send-timeout"] == "3600"
    assert found[f"{prefix}/proxy-read-timeout"] == "900"
    assert "annotations" not in one(rendered("operator"), "Ingress")["metadata"]


def test_streams_scale_the_pods():
    """70 % of a replica's own limit; the Deployment then has no number of its own; pods go one by one."""
    found = rendered("everything")
    assert "replicas" not in one(found, "Deployment")["spec"]
    scaler = one(found, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == NAME
    streams, cpu = scaler["metrics"]
    assert streams["pods"]["metric"] == {"name": "streamgate_streams_active"}
    assert streams["pods"]["target"] == {"type": "AverageValue", "averageValue": "350"}
    assert cpu["resource"]["target"]["averageUtilization"] == 75
    assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    external = one(rendered("external"), "HorizontalPodAutoscaler")["spec"]["metrics"][0]
    assert external["external"]["metric"]["selector"] == {"matchLabels": {"job": NAME}}
    assert external["external"]["target"]["averageValue"] == "350"


def test_keda_counts_streams_that_are_not_draining():
    """Those of a pod that goes are not a reason for a new one."""
    found = rendered("keda")
    scaled = one(found, "ScaledObject")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (2, 10)
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["threshold"] == "70"
    assert trigger["authenticationRef"] == {"name": "prometheus"}
    assert "HorizontalPodAutoscaler" not in kinds(found)


def test_the_disruption_budget_is_one_or_the_other():
    """A pod that never became ready holds no node up."""
    one_by_one = one(rendered("defaults"), "PodDisruptionBudget")["spec"]
    assert one_by_one["maxUnavailable"] == 1
    assert one_by_one["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    half = one(rendered("external"), "PodDisruptionBudget")["spec"]
    assert half["minAvailable"] == "50%"
    assert "maxUnavailable" not in half


def test_only_monitoring_reaches_the_admin_port():
    """And only the named clients, and `helm test`, the traffic port."""
    rules = one(rendered("everything"), "NetworkPolicy")["spec"]["ingress"]
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in rules}
    assert by_port["admin"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    test = one(rendered("everything"), "Pod")["metadata"]["labels"]
    assert by_port["http"][-1]["podSelector"]["matchLabels"].items() <= test.items()
    bare = one(rendered("bare"), "NetworkPolicy")["spec"]
    assert bare["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert bare["policyTypes"] == ["Ingress"]


def test_egress_is_bounded_when_asked():
    """DNS, and what is listed."""
    spec = one(rendered("everything"), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [[each["port"] for each in rule["ports"]] for rule in spec["egress"]] == [[53, 53], [8000]]


def test_traces_say_which_pod_they_are_from():
    """Variables are defined above their use: Kubernetes expands no others."""
    names = [each["name"] for each in container(rendered("everything"))["env"]]
    values = {each["name"]: each.get("value") for each in container(rendered("everything"))["env"]}
    assert values["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.observability.svc:4318"
    attributes = values["OTEL_RESOURCE_ATTRIBUTES"]
    assert attributes.startswith("k8s.namespace.name=llm,k8s.deployment.name=gw-streamgate,")
    assert attributes.endswith(",deployment.environment.name=production")
    for used in ("K8S_POD_NAME", "K8S_POD_UID", "K8S_NODE_NAME"):
        assert f"$({used})" in attributes
        assert names.index(used) < names.index("OTEL_RESOURCE_ATTRIBUTES")


def test_what_is_extra_is_there():
    """Containers, mounts, variables, parts of the pod, whole objects with templates in them."""
    found = rendered("everything")
    assert [each["name"] for each in pod(found)["containers"]] == ["streamgate", "beside"]
    assert pod(found)["runtimeClassName"] == "gvisor"
    assert container(found)["args"][-1] == "--log-level=debug"
    assert container(found)["image"].startswith("registry.example.com/streamgate@sha256:")
    assert one(found, "ConfigMap", "gw-streamgate-more")["data"] == {"release": "gw"}
    assert one(found, "ConfigMap", "text")


def test_names_are_cut_to_what_kubernetes_takes():
    """A release and an override as long as they may be."""
    long = template("helm4", "--set", f"fullnameOverride={'a' * 53}", "--set", "dashboards.enabled=true")
    assert f"name: {'a' * 53}-dashboards\n" in long

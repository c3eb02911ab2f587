"""Who may do what: roles, and who may reach what over the network."""

from __future__ import annotations

from typing import Any

from tests.infra.chart.rendering import release

READS = {"get", "list", "watch"}


def granted(role: dict[str, Any]) -> set[tuple[str, str]]:
    """(resource, verb) of a role."""
    return {(r, verb) for rule in role["rules"] for r in rule["resources"] for verb in rule["verbs"]}


def test_no_role_grants_everything_of_anything() -> None:
    for role in [*release("kind-cpu").of("Role"), *release("kind-cpu").of("ClusterRole")]:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_nobody_reads_secrets_or_makes_or_deletes_pods() -> None:
    all_of_it = {pair for role in release("kind-cpu").of("Role") for pair in granted(role)}
    assert not [pair for pair in all_of_it if pair[0] in ("secrets", "configmaps", "pods/exec")]
    assert not {("pods", "create"), ("pods", "delete"), ("deployments", "patch")} & all_of_it


def test_the_listener_only_looks() -> None:
    role = release("kind-cpu").one("Role", "demo-listener")
    assert {verb for _, verb in granted(role)} <= READS


def test_outside_its_namespace_only_nodes_are_read() -> None:
    (role,) = release("kind-cpu").of("ClusterRole")
    assert {r for r, _ in granted(role)} == {"nodes"}
    assert {verb for _, verb in granted(role)} <= READS


def test_every_account_that_a_pod_names_is_made_and_bound() -> None:
    made = release("kind-cpu")
    used = {p["spec"]["serviceAccountName"] for p in made.pods().values() if p["spec"].get("serviceAccountName")}
    bound = {s["name"] for b in made.of("RoleBinding") for s in b["subjects"]}
    assert used == bound == {o["metadata"]["name"] for o in made.of("ServiceAccount")}


def test_without_the_right_to_make_roles_none_is_made() -> None:
    kinds = {o["kind"] for o in release("no-operator").items}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount", "NetworkPolicy"}


def ingress(name: str, port: str) -> list[dict[str, Any]] | None:
    """Peers that may reach a port of the replicas; None: everybody."""
    policy = release(name).one("NetworkPolicy", "demo-triton")
    (rule,) = (r for r in policy["spec"]["ingress"] if r["ports"] == [{"port": port}])
    found: list[dict[str, Any]] | None = rule.get("from")
    return found


def peers(name: str, port: str) -> set[str]:
    """Pods of the release among them."""
    selectors = [p["podSelector"]["matchLabels"] for p in ingress(name, port) or [] if "podSelector" in p]
    pods = release(name).pods().items()
    return {n for n, pod in pods for s in selectors if s.items() <= pod["metadata"]["labels"].items()}


def test_the_grpc_port_is_the_workers_alone() -> None:
    assert peers("kind-cpu", "grpc") == {"demo-worker"}
    assert len(ingress("kind-cpu", "grpc") or []) == 1


def test_inference_is_open_until_a_gateway_is_named() -> None:
    assert ingress("kind-cpu", "http") is None
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}} in (
        ingress("claim-strict", "http") or []
    )
    assert peers("claim-strict", "http") == {"demo-worker"}


def test_grpc_clients_are_let_in_by_name() -> None:
    assert {"podSelector": {"matchLabels": {"triton-client": "true"}}} in (ingress("claim-strict", "grpc") or [])


def test_replicas_call_nobody_but_the_name_server_and_their_object_store() -> None:
    for name, ports in (("kind-cpu", {53}), ("gpu-objectstore", {53, 443})):
        policy = release(name).one("NetworkPolicy", "demo-triton")["spec"]
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
        assert {p["port"] for rule in policy["egress"] for p in rule["ports"]} == ports


def test_workload_identity_reaches_the_metadata_server_and_nothing_else_there() -> None:
    policy = release("workload-identity").one("NetworkPolicy", "demo-triton")["spec"]
    (rule,) = (r for r in policy["egress"] if "to" in r)
    assert rule["to"] == [{"ipBlock": {"cidr": f"169.254.169.{last}/32"}} for last in (254, 252)]
    assert {p["port"] for p in rule["ports"]} == {80, 988}


def test_every_pod_is_covered_by_a_policy() -> None:
    made = release("kind-cpu")
    for name, pod in made.pods().items():
        labels = pod["metadata"]["labels"]
        covering = [
            policy["metadata"]["name"]
            for policy in made.of("NetworkPolicy")
            if policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
            and all(labels[e["key"]] in e["values"] for e in policy["spec"]["podSelector"].get("matchExpressions", []))
        ]
        assert len(covering) == 1, f"{name}: {covering}"

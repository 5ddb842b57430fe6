"""What every container in Deploy must have, read from the files: `look.py DIRECTORY`. Ends with 1 on a finding.

`look.py --queries DIRECTORY Monitoring.swift` looks at alerts and dashboard, and writes what they ask as a file of rules.
`look.py --operator FILE` writes what RabbitMQ's operator is told of its pods as a StatefulSet, which has a schema."""
import json
import pathlib
import re
import sys

import yaml

FINDINGS = []


def must(holds, where, what):
    if not holds:
        FINDINGS.append(f"{where}: {what}")


def tagged(image):
    name = image.rsplit("/", 1)[-1].rstrip("}")
    return ":" in name and not name.endswith(":latest")


def look_at_compose(path):
    file = yaml.safe_load(path.read_text())
    services, secrets = file["services"], file.get("secrets", {})
    for name, service in services.items():
        where = f"{path.name} {name}"
        must(tagged(service["image"]), where, "the image has no fixed tag")
        must("mem_limit" in service, where, "no limit of memory")
        must("restart" in service, where, "nothing is said of restarts")
        must("no-new-privileges:true" in service.get("security_opt", []), where, "may gain privileges")
        must(not service.get("privileged"), where, "is privileged")
        for key, value in (service.get("environment") or {}).items():
            hides = any(word in key for word in ("PASSWORD", "SECRET", "TOKEN", "URL", "COOKIE"))
            must(not hides or key.endswith("_FILE"), where, f"{key} is no file")
            for secret in ("/run/secrets/",):
                must(secret not in str(value) or key.endswith(("_FILE", "_CA")), where, f"{key} is a path, read as a value")
        for secret in service.get("secrets", []):
            source = secret["source"] if isinstance(secret, dict) else secret
            must(source in secrets, where, f"secret {source} is not declared")
        for port in service.get("ports", []):
            must(str(port).startswith("127.0.0.1:"), where, f"port {port} is open to others")
        if "hub:" in service["image"]:
            must(service.get("read_only") is True, where, "its root can be written to")
            must(service.get("cap_drop") == ["ALL"], where, "keeps capabilities")
            must("stop_grace_period" in service, where, "no time to give back what is in flight")
        elif "healthcheck" not in service:
            must(False, where, "no health check")
    if {"head-db", "branch"} <= set(services):
        shared = set(services["branch"]["networks"]) & (set(services["head"]["networks"]) | set(services["head-db"]["networks"]))
        must(not shared, path.name, f"a branch and head share {shared}")
        for site in ("head-site", "branch-site"):
            must((file["networks"][site] or {}).get("internal"), path.name, f"{site} leads outside")


def pod_templates(documents):
    for document in documents:
        template = document.get("spec", {}).get("template")
        if template:
            yield f"{document['kind']} {document['metadata']['name']}", document, template


def look_at_manifests(path):
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
    policies = [d["spec"] for d in documents if d["kind"] == "NetworkPolicy"]
    must(not any(d["kind"] == "Secret" for d in documents), path.name, "has a secret in it")
    for where, document, template in pod_templates(documents):
        spec, labels = template["spec"], template["metadata"]["labels"]
        must(document["spec"]["selector"]["matchLabels"].items() <= labels.items(), where, "selects other pods")
        must(spec.get("automountServiceAccountToken") is False, where, "has an account at the API")
        must(spec["securityContext"].get("runAsNonRoot") is True, where, "may run as root")
        must(spec["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"}, where, "no seccomp profile")
        # Else each start gives a whole volume to the group, and PostgreSQL and Erlang refuse files that others may read.
        must(spec["securityContext"].get("fsGroupChangePolicy") == "OnRootMismatch", where, "its files change at every start")
        chosen = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
        must(any(set(p["policyTypes"]) == {"Ingress", "Egress"} for p in chosen), where, "no network policy both ways")
        volumes = {v["name"] for v in spec.get("volumes", [])}
        volumes |= {c["metadata"]["name"] for c in document["spec"].get("volumeClaimTemplates", [])}
        for container in spec.get("initContainers", []) + spec["containers"]:
            place = f"{where} {container['name']}"
            context = container.get("securityContext", {})
            must(context.get("allowPrivilegeEscalation") is False, place, "may gain privileges")
            must(context.get("readOnlyRootFilesystem") is True, place, "its root can be written to")
            must(context.get("capabilities") == {"drop": ["ALL"]}, place, "keeps capabilities")
            must(tagged(container["image"]), place, "the image has no fixed tag")
            must(container.get("imagePullPolicy") == "IfNotPresent", place, "nothing is said of pulling")
            for kind in ("requests", "limits"):
                must(set(container["resources"][kind]) == {"cpu", "memory"}, place, f"no {kind} of cpu and memory")
            mounted = {m["name"] for m in container.get("volumeMounts", [])}
            must(mounted <= volumes, place, f"mounts {mounted - volumes}")
            ready = "readinessProbe" in container or container in spec.get("initContainers", [])
            must(ready, place, "nothing tells when it is ready")
            is_hub = container["image"].startswith("hub:")
            must(is_hub != ("livenessProbe" in container), place, "hub alone goes without a liveness probe")


# Of rabbitmq.com/v1beta1; those of them that a RabbitmqCluster here may use.
OPERATOR_KNOWS = {"replicas", "image", "persistence", "resources", "affinity", "tls", "secretBackend", "rabbitmq", "override"}


def look_at_operator(path):
    for document in (d for d in yaml.safe_load_all(path.read_text()) if d and d["kind"] == "RabbitmqCluster"):
        where, spec = f"{path.name} {document['metadata']['name']}", document["spec"]
        must(set(spec) <= OPERATOR_KNOWS, where, f"the operator does not know {set(spec) - OPERATOR_KNOWS}")
        must(spec["tls"].get("disableNonTLSListeners") is True, where, "takes connections without TLS")
        must(tagged(spec["image"]), where, "the image has no fixed tag")
        pod = spec["override"]["statefulSet"]["spec"]["template"]["spec"]
        must(pod["securityContext"].get("runAsNonRoot") is True, where, "may run as root")
        must(pod["securityContext"].get("fsGroupChangePolicy") == "OnRootMismatch", where, "its files change at every start")
        for container in pod["initContainers"] + pod["containers"]:
            context = container["securityContext"]
            must(context.get("allowPrivilegeEscalation") is False, where, f"{container['name']} may gain privileges")
            must(context.get("capabilities") == {"drop": ["ALL"]}, where, f"{container['name']} keeps capabilities")


def operators_pods(path):
    """JSON of a StatefulSet for the first RabbitmqCluster in the file; nothing without one."""
    for document in (d for d in yaml.safe_load_all(path.read_text()) if d and d["kind"] == "RabbitmqCluster"):
        spec = document["spec"]
        template = spec["override"]["statefulSet"]["spec"]["template"]
        template["spec"]["affinity"] = spec["affinity"]
        for container in template["spec"]["initContainers"] + template["spec"]["containers"]:
            container.update(image=spec["image"], resources=spec["resources"])
        selector = {"matchLabels": template["metadata"]["labels"]}
        return json.dumps({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": document["metadata"],
            "spec": {"serviceName": "broker", "replicas": spec["replicas"], "selector": selector, "template": template}})
    return ""


# Not hub's own.
OTHERS = ("rabbitmq_queue_messages",)


def look_at_monitoring(root, source):
    """Alerts and dashboard ask for what hub has, and kustomize's copy of the alerts is the same."""
    has = set(re.findall(r'"(hub_\w+)"', source.read_text()))
    rules = yaml.safe_load((root / "monitoring" / "alerts.yml").read_text())
    copy = yaml.safe_load((root / "kubernetes" / "components" / "monitoring" / "alerts.yaml").read_text())
    must(copy["spec"]["groups"] == rules["groups"], "alerts.yaml", "is not monitoring/alerts.yml")
    dashboard = json.loads((root / "monitoring" / "grafana" / "hub.json").read_text())
    asked = [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]
    asked += [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]
    for where, query in asked:
        names = set(re.findall(r"\b(?:hub|rabbitmq)_\w+", query))
        must(names, where, "asks for nothing")
        must(names <= has | set(OTHERS), where, f"asks for {names - has}")
    ids = [p["id"] for p in dashboard["panels"]]
    must(len(set(ids)) == len(ids), "hub.json", "two panels have one id")
    # For promtool, which reads the language.
    return {"groups": [{"name": "asked", "rules": [{"record": f"q{i}", "expr": q} for i, (_, q) in enumerate(asked)]}]}


def main():
    if sys.argv[1] == "--queries":
        print(json.dumps(look_at_monitoring(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))))
        for finding in FINDINGS:
            print(finding, file=sys.stderr)
        return 1 if FINDINGS else 0
    if sys.argv[1] == "--operator":
        print(operators_pods(pathlib.Path(sys.argv[2])))
        return 0
    root = pathlib.Path(sys.argv[1])
    files = sorted([root / "compose.yaml", root / "compose" / "head.yaml", root / "compose" / "branch.yaml"])
    manifests = sorted(p for p in (root / "kubernetes" / "base").rglob("*.yaml") if p.name != "kustomization.yaml")
    for path in files:
        look_at_compose(path)
    for path in manifests:
        look_at_manifests(path)
        look_at_operator(path)
    for finding in FINDINGS:
        print(finding)
    print(f"{len(files)} compose files and {len(manifests)} manifests looked at, {len(FINDINGS)} findings")
    return 1 if FINDINGS or len(files) < 3 or len(manifests) < 4 else 0


sys.exit(main())

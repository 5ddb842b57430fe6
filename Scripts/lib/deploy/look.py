"""What every container in Deploy must have, read from the files: `look.py DIRECTORY`. Ends with 1 on a finding."""
import pathlib
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


def main():
    root = pathlib.Path(sys.argv[1])
    files = sorted([root / "compose.yaml", *(root / "compose").glob("*.yaml")])
    manifests = sorted(p for p in (root / "kubernetes" / "base").rglob("*.yaml") if p.name != "kustomization.yaml")
    for path in files:
        look_at_compose(path)
    for path in manifests:
        look_at_manifests(path)
    for finding in FINDINGS:
        print(finding)
    print(f"{len(files)} compose files and {len(manifests)} manifests looked at, {len(FINDINGS)} findings")
    return 1 if FINDINGS or len(files) < 3 or len(manifests) < 4 else 0


sys.exit(main())

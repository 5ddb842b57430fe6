"""Runs the pods of rendered Kubernetes manifests with Docker alone, where there is no cluster to try them on: what
the manifests say of images, commands, environment, volumes, users, privileges and limits is done as a node does it.
Services are names that lead to all their pods. Of controllers there is only the number of replicas; nothing enforces
network policies.

  pods.py FILE DIRECTORY up              all workloads, volumes in DIRECTORY
  pods.py FILE DIRECTORY scale NAME N    a StatefulSet's or Deployment's replicas
  pods.py FILE DIRECTORY ready           ends with 0 when every pod answers its readiness probes
  pods.py FILE DIRECTORY down            everything but the volumes
"""
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import yaml

NETWORK = "hub-pods"
PAUSE = "debian:bookworm-slim"


def docker(*arguments, check=True, quiet=True):
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=quiet, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"docker {' '.join(map(str, arguments))}: {done.stderr}")
    return done


class Manifests:
    def __init__(self, path):
        self.documents = [d for d in yaml.safe_load_all(pathlib.Path(path).read_text()) if d]

    def of_kind(self, *kinds):
        return [d for d in self.documents if d["kind"] in kinds]

    def data(self, kind, name):
        document = next(d for d in self.of_kind(kind) if d["metadata"]["name"] == name)
        data = document.get("data", {})
        if kind == "Secret":
            return {key: base64.b64decode(value) for key, value in data.items()}
        return {key: value.encode() for key, value in data.items()}

    def names_of(self, labels, pod):
        """The names under which the pod is found: its services', and its own below a headless one."""
        for service in self.of_kind("Service"):
            if service["spec"]["selector"].items() <= labels.items():
                name = service["metadata"]["name"]
                yield name
                if service["spec"].get("clusterIP") == "None":
                    yield f"{pod}.{name}"


class Pod:
    def __init__(self, manifests, directory, workload, name):
        self.manifests, self.directory, self.workload, self.name = manifests, directory, workload, name
        self.template = workload["spec"]["template"]
        self.spec = self.template["spec"]
        self.context = self.spec.get("securityContext", {})
        self.group = self.context.get("fsGroup", 0)

    def container_name(self, container):
        return f"pod-{self.name}-{container['name']}"

    @property
    def pause(self):
        return f"pod-{self.name}"

    def start(self):
        if docker("inspect", self.pause, check=False).returncode == 0:
            return
        aliases = [f"--network-alias={name}" for name in self.manifests.names_of(self.template["metadata"]["labels"], self.name)]
        docker("run", "-d", "--name", self.pause, "--hostname", self.name, "--network", NETWORK, *aliases, PAUSE, "sleep", "infinity")
        for container in self.spec.get("initContainers", []):
            while docker("run", "--rm", "--name", self.container_name(container), *self.arguments(container), check=False, quiet=False).returncode:
                time.sleep(2)
        for container in self.spec["containers"]:
            docker("run", "-d", "--restart=always", "--name", self.container_name(container), *self.arguments(container))

    def stop(self):
        grace = self.spec.get("terminationGracePeriodSeconds", 30)
        names = [self.container_name(c) for c in self.spec["containers"]]
        docker("stop", "-t", grace, *reversed(names), check=False)
        docker("rm", "-f", *names, self.pause, check=False)

    def is_ready(self):
        for container in self.spec["containers"]:
            probe = container["readinessProbe"]
            if "tcpSocket" in probe:
                command = ["bash", "-c", f": </dev/tcp/127.0.0.1/{probe['tcpSocket']['port']}"]
            else:
                command = probe["exec"]["command"]
            if docker("exec", self.container_name(container), *command, check=False).returncode:
                return False
        return True

    def arguments(self, container):
        context = {**self.context, **container.get("securityContext", {})}
        yield from ("--network", f"container:{self.pause}", "--group-add", self.group)
        if "runAsUser" in context:
            yield from ("--user", f"{context['runAsUser']}:{context.get('runAsGroup', 0)}")
        elif context.get("runAsNonRoot"):
            user = json.loads(docker("image", "inspect", container["image"]).stdout)[0]["Config"]["User"]
            if not re.match(r"[1-9]", user):
                raise SystemExit(f"{container['image']} runs as {user or 'root'}")
        if context.get("readOnlyRootFilesystem"):
            yield "--read-only"
        for capability in context.get("capabilities", {}).get("drop", []):
            yield from ("--cap-drop", capability)
        if context.get("allowPrivilegeEscalation") is False:
            yield from ("--security-opt", "no-new-privileges:true")
        limits = container["resources"]["limits"]
        yield from ("--memory", limits["memory"].lower().rstrip("i"), "--cpus", limits["cpu"])
        for key, value in self.environment(container).items():
            yield from ("-e", f"{key}={value}")
        for mount in container.get("volumeMounts", []):
            path = self.volume(mount["name"])
            if "subPath" in mount:
                path = path / mount["subPath"]
            yield from ("-v", f"{path}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}")
        command = container.get("command", [])
        if command:
            yield from ("--entrypoint", command[0])
        yield container["image"]
        yield from command[1:] + container.get("args", [])

    def environment(self, container):
        found = {}
        for source in container.get("envFrom", []):
            data = self.manifests.data("ConfigMap", source["configMapRef"]["name"])
            found.update({key: value.decode() for key, value in data.items()})
        for entry in container.get("env", []):
            found[entry["name"]] = self.value(entry, found)
        return found

    def value(self, entry, found):
        source = entry.get("valueFrom")
        if source is None:
            return re.sub(r"\$\((\w+)\)", lambda m: found.get(m[1], m[0]), entry["value"])
        if "fieldRef" in source:
            if source["fieldRef"]["fieldPath"] != "metadata.name":
                raise SystemExit(f"{source} is not known here")
            return self.name
        reference = source["secretKeyRef"]
        return self.manifests.data("Secret", reference["name"])[reference["key"]].decode()

    def volume(self, name):
        """A directory on the host, with the owner and mode that a node gives it."""
        for claim in self.workload["spec"].get("volumeClaimTemplates", []):
            if claim["metadata"]["name"] == name:
                return self.make(self.directory / "claims" / f"{name}-{self.name}", 0o2775)
        volume = next(v for v in self.spec["volumes"] if v["name"] == name)
        if "persistentVolumeClaim" in volume:
            return self.make(self.directory / "claims" / volume["persistentVolumeClaim"]["claimName"], 0o2775)
        path = self.directory / "pods" / self.name / name
        if "emptyDir" in volume:
            return self.make(path, 0o2777)
        return self.files(volume, self.make(path, 0o2755))

    def files(self, volume, path):
        kind, source = ("Secret", volume["secret"]) if "secret" in volume else ("ConfigMap", volume["configMap"])
        data = self.manifests.data(kind, source.get("secretName") or source["name"])
        items = {item["key"]: item["path"] for item in source.get("items", [])} or {key: key for key in data}
        for key, name in items.items():
            file = path / name
            file.write_bytes(data[key])
            os.chown(file, 0, self.group)
            file.chmod(source.get("defaultMode", 0o644))
        return path

    def make(self, path, mode):
        if not path.exists():
            path.mkdir(parents=True)
            os.chown(path, 0, self.group)
            path.chmod(mode)
        return path


class Cluster:
    def __init__(self, file, directory):
        self.manifests = Manifests(file)
        self.directory = pathlib.Path(directory)
        self.counts = self.directory / "replicas.json"

    def replicas(self):
        counts = {w["metadata"]["name"]: w["spec"].get("replicas", 1) for w in self.workloads()}
        if self.counts.exists():
            counts.update(json.loads(self.counts.read_text()))
        return counts

    def workloads(self):
        return self.manifests.of_kind("StatefulSet", "Deployment")

    def pods(self, counts):
        for workload in self.workloads():
            name = workload["metadata"]["name"]
            for number in range(counts[name]):
                yield Pod(self.manifests, self.directory, workload, f"{name}-{number}")

    def up(self):
        if docker("network", "inspect", NETWORK, check=False).returncode:
            docker("network", "create", NETWORK)
        # Nobody waits for another, as in a cluster; but an init container here waits in this process: those pods last.
        for pod in sorted(self.pods(self.replicas()), key=lambda p: "initContainers" in p.spec):
            pod.start()

    def scale(self, name, number):
        counts = self.replicas()
        before = {pod.name: pod for pod in self.pods(counts)}
        counts[name] = int(number)
        after = {pod.name for pod in self.pods(counts)}
        self.directory.mkdir(exist_ok=True)
        self.counts.write_text(json.dumps(counts))
        for pod in before.values():
            if pod.name not in after:
                pod.stop()
        self.up()

    def ready(self):
        waiting = [pod.name for pod in self.pods(self.replicas()) if not pod.is_ready()]
        print(f"not ready: {' '.join(waiting)}" if waiting else "all ready")
        return 1 if waiting else 0

    def down(self):
        for pod in self.pods(self.replicas()):
            pod.stop()
        docker("network", "rm", NETWORK, check=False)
        shutil.rmtree(self.directory / "pods", ignore_errors=True)


def main():
    file, directory, command, *rest = sys.argv[1:]
    return getattr(Cluster(file, directory), command)(*rest)


sys.exit(main())
